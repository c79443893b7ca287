"""Django's Postgres backend with a health check that costs no round trip, and with prepared statements.

Django asks `SELECT 1` before the first query of every request, which is a third of what a list costs to read. A
server that went away, or ended the session, has closed its side of the socket, and the kernel knows that.

Statements are prepared only where a cursor for it is asked for: SQL that the ORM composes differs too often.
"""

import select
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from django.db.backends.utils import CursorWrapper


class DatabaseWrapper(base.DatabaseWrapper):
    def get_connection_params(self) -> dict[str, Any]:
        """Django's own cursors write the values into the text, and are therefore not touched by the threshold."""
        return {**super().get_connection_params(), "prepare_threshold": 0}

    def prepared_cursor(self) -> CursorWrapper:
        """A cursor whose statements the server parses and plans once per connection: for SQL that is written out.

        Parameters travel apart from the text, so each place must have a type by itself. Logged as any other.
        """
        self.close_if_health_check_failed()
        self.ensure_connection()
        with self.wrap_database_errors:
            cursor: CursorWrapper = self._prepare_cursor(psycopg.Cursor(self.connection))  # type: ignore[attr-defined]
            return cursor

    def is_usable(self) -> bool:
        """Asks the server only if something lies unread in the socket (its end, or its last words), or if a query
        failed before."""
        if self.connection is None or self.connection.closed:
            return False
        if self.errors_occurred or _has_news(self.connection.fileno()):
            return bool(super().is_usable())
        return True


def _has_news(descriptor: int) -> bool:
    looking = select.poll()
    looking.register(descriptor, select.POLLIN)
    return bool(looking.poll(0))
