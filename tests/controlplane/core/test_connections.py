"""A connection that is kept is asked about its health without a round trip, and a dead one is still noticed."""

import psycopg
import pytest
from django.conf import settings
from django.db import DataError, connection
from django.test.utils import CaptureQueriesContext

from controlplane.core.bus import conninfo
from controlplane.core.sql import prepared_cursor

ASKED = "SELECT 7"

pytestmark = pytest.mark.django_db(transaction=True)


def value() -> int:
    with connection.cursor() as cursor:
        cursor.execute(ASKED)
        return int(cursor.fetchone()[0])


def next_request() -> None:
    """What Django does to the connection between two requests."""
    connection.close_if_unusable_or_obsolete()
    connection.health_check_done = False


def backend_pid() -> int:
    connection.ensure_connection()
    return int(connection.connection.info.backend_pid)


@pytest.fixture(autouse=True)
def checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "CONN_HEALTH_CHECKS", True)
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 60)
    connection.close()


def terminate(pid: int) -> None:
    with psycopg.connect(conninfo(), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def test_a_healthy_connection_is_kept() -> None:
    before = backend_pid()
    next_request()
    assert value() == 7
    assert backend_pid() == before


def test_a_silent_server_is_given_up_by_connections_and_listeners_within_seconds() -> None:
    """As the protocol sees it: a link that is gone answers nothing, not even with an error."""
    connection.ensure_connection()
    with psycopg.connect(conninfo()) as listener:
        for found in (connection.connection.info, listener.info):
            used = found.get_parameters()
            assert int(used["tcp_user_timeout"]) / 1000 < settings.ENVIRONMENT.lease_s / 2
            unanswered_s = int(used["keepalives_interval"]) * int(used["keepalives_count"])
            assert int(used["keepalives_idle"]) + unanswered_s < settings.ENVIRONMENT.lease_s


def test_the_check_sends_nothing() -> None:
    pid = backend_pid()
    value()
    next_request()
    assert connection.is_usable()
    with psycopg.connect(conninfo(), autocommit=True) as other:
        last = other.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
    assert last == (ASKED,)


def test_a_connection_that_the_server_ended_is_replaced_before_it_costs_a_request() -> None:
    before = backend_pid()
    next_request()
    terminate(before)
    assert value() == 7
    assert backend_pid() != before


def test_after_a_failed_query_the_server_itself_is_asked() -> None:
    before = backend_pid()
    next_request()
    connection.errors_occurred = True
    terminate(before)
    assert not connection.is_usable()


def test_a_prepared_statement_is_parsed_once_per_connection_and_logged_as_any() -> None:
    connection.close()
    with CaptureQueriesContext(connection) as queries:
        for number in (1, 2, 3):
            with prepared_cursor() as cursor:
                cursor.execute("SELECT %s::int + 1", [number])
                assert cursor.fetchone() == (number + 1,)
    assert len(queries) == 3
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT $1::int%%'")
        assert cursor.fetchone() == (1,)


def test_a_failure_of_a_prepared_statement_is_raised_as_djangos() -> None:
    with pytest.raises(DataError), prepared_cursor() as cursor:
        cursor.execute("SELECT 1 / %s::int", [0])
