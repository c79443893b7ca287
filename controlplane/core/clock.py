"""Time as the database sees it: the only clock that leases and fences are compared by."""

from datetime import datetime

from django.db import connection


def database_now() -> datetime:
    """Aware UTC time of the database at this statement (not of the transaction's start). One query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        row = cursor.fetchone()
    assert row is not None
    now: datetime = row[0]
    return now
