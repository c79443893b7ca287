"""The embedded servers alone: quick to start, private, and patient with what a kill left behind."""

import json
import os
import signal
import stat
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from controlplane.embedded import leftovers, postgres, procfs
from controlplane.embedded.errors import SetupError
from controlplane.embedded.generated import generated
from controlplane.embedded.home import Home
from controlplane.embedded.runtime import start_servers
from tests.controlplane.embedded.conftest import until

pytestmark = pytest.mark.processes
ONCE = Retry(NoBackoff(), retries=0)


def test_both_answer_and_stop_with_the_block(home: Path) -> None:
    with start_servers(home, durable=False) as servers:
        with psycopg.connect(servers.database_url) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == ("slipway",)
        with redis.Redis.from_url(servers.redis_url) as client:
            assert client.ping()
    assert procfs.look(servers.postgres_pid) is None
    assert procfs.look(servers.valkey_pid) is None


def test_data_survives_a_stop_and_a_start(home: Path) -> None:
    with start_servers(home) as servers, psycopg.connect(servers.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    with start_servers(home) as servers, psycopg.connect(servers.database_url) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (7,)


def test_postgres_listens_on_a_private_socket_and_wants_its_password(home: Path) -> None:
    with start_servers(home, durable=False) as servers:
        sockets = Home(root=home).sockets
        assert stat.S_IMODE((sockets / ".s.PGSQL.5432").stat().st_mode) == 0o700
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(host=str(sockets), user="slipway", password="wrong", dbname="slipway")
        with psycopg.connect(servers.database_url) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def test_valkey_wants_its_password_and_evicts_nothing(home: Path) -> None:
    with start_servers(home) as servers:
        port = urlsplit(servers.redis_url).port
        with redis.Redis(port=port, retry=ONCE) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with redis.Redis.from_url(servers.redis_url) as client:
            asked = client.config_get("maxmemory-policy", "appendonly", "appendfsync")
    assert asked == {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec"}


def test_new_secrets_do_not_lose_old_data(home: Path) -> None:
    with start_servers(home) as servers, psycopg.connect(servers.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    place, old = Home(root=home), generated(Home(root=home)).admin_password
    postgres.note_given(place, user="admin", password=old)
    (home / "secrets.json").unlink()
    with start_servers(home) as servers, psycopg.connect(servers.database_url) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (7,)
    assert postgres.gave(place, user="admin", password=old)
    assert not postgres.gave(place, user="admin", password=generated(place).admin_password)


def test_secrets_stay_the_same_over_restarts(home: Path) -> None:
    with start_servers(home, durable=False) as first:
        pass
    with start_servers(home, durable=False) as second:
        pass
    assert (first.database_url, first.redis_url) == (second.database_url, second.redis_url)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_secrets_that_cannot_be_read_are_refused_and_not_replaced(home: Path, text: str) -> None:
    (home / "secrets.json").write_text(text)
    with pytest.raises(SetupError, match="not the JSON object"), start_servers(home):
        pass
    assert (home / "secrets.json").read_text() == text


def test_a_half_made_database_is_made_again(home: Path) -> None:
    (home / "postgres.new").mkdir()
    (home / "postgres.new" / "PG_VERSION").write_text("18")
    with start_servers(home, durable=False) as servers, psycopg.connect(servers.database_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_pid_file_that_names_somebody_else_does_not_stop_the_start(home: Path) -> None:
    """After a kill -9 and a reboot the pid in it may be anybody's, here our own."""
    with start_servers(home) as servers, psycopg.connect(servers.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
        stale = (home / "postgres" / "postmaster.pid").read_text()
    (home / "postgres" / "postmaster.pid").write_text(
        stale.replace(str(servers.postgres_pid), str(os.getpid()), 1)
    )
    with start_servers(home) as servers, psycopg.connect(servers.database_url) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (7,)


def test_a_server_that_outlived_its_home_is_stopped_before_the_next(home: Path) -> None:
    """Its record is gone too, so only the data folder tells."""
    with start_servers(home) as first:
        (home / "run" / "postgres.pid").unlink()
        postgres.prepare(
            Home(root=home), password=json.loads((home / "secrets.json").read_text())["postgres_password"]
        )
        assert until(lambda: procfs.working_in(home / "postgres") == ())
        assert not (home / "postgres" / "postmaster.pid").exists()
    with start_servers(home) as second, psycopg.connect(second.database_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert second.postgres_pid != first.postgres_pid


def test_one_home_belongs_to_one_holder(home: Path) -> None:
    with (
        start_servers(home, durable=False),
        pytest.raises(SetupError, match=f"process {os.getpid()}"),
        start_servers(home),
    ):
        pass


def test_a_record_of_a_reused_pid_is_not_signalled(home: Path) -> None:
    run = home / "run"
    run.mkdir(mode=0o700)
    me = procfs.look(os.getpid())
    assert me is not None
    record = {"pid": me.pid, "started": me.started - 1, "signal": signal.SIGKILL.name}
    (run / "postgres.pid").write_text(json.dumps(record))
    with start_servers(home, durable=False):
        assert json.loads((run / "postgres.pid").read_text())["pid"] != me.pid


def test_a_leftover_that_ends_before_it_is_signalled_stops_no_start(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    (home / "run").mkdir(mode=0o700)
    (home / "run" / "web.pid").write_text(json.dumps({"pid": ended.pid, "started": 1, "signal": "SIGTERM"}))
    looks = iter([True])
    monkeypatch.setattr(procfs, "lives", lambda pid, *, started: next(looks, False))
    assert leftovers.stop_leftovers(Home(root=home)) == ("web",)


def test_a_socket_folder_that_others_can_open_is_refused(home: Path) -> None:
    (home / "run").mkdir(mode=0o755)
    with pytest.raises(SetupError, match="open to others"), start_servers(home):
        pass
