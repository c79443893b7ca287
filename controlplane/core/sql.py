"""For the few statements that are written out, because they run on every request."""

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.utils import CursorWrapper

from controlplane.core.postgres.base import DatabaseWrapper


def prepared_cursor() -> CursorWrapper:
    """See `DatabaseWrapper.prepared_cursor`. Use it in a `with`."""
    database = connections[DEFAULT_DB_ALIAS]
    assert isinstance(database, DatabaseWrapper)
    return database.prepared_cursor()
