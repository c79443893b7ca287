"""What `up` cannot start with is one sentence, and nothing of it runs on."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from controlplane.embedded import preflight
from controlplane.embedded.errors import SetupError
from controlplane.embedded.home import Home
from tests.controlplane.embedded.conftest import (
    REPOSITORY,
    Program,
    processes_of,
)

pytestmark = pytest.mark.processes

type Start = Callable[..., Program]


def test_a_second_up_on_the_same_home_is_refused_in_one_sentence(start: Start, home: Path) -> None:
    first = start()
    first.ready()
    second = start()
    assert second.wait() == 1
    assert second.output() == (
        f"error: Another `up` (process {first.popen.pid}) runs on SLIPWAY_HOME {home}: stop it, or set SLIPWAY_HOME "
        "to another folder."
    )
    assert first.state().ready


@pytest.mark.parametrize("variable", ["SLIPWAY_ADDRESS", "SLIPWAY_DATA_PORT"])
def test_a_taken_port_is_refused_in_one_sentence(start: Start, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        value = f"127.0.0.1:{port}" if variable == "SLIPWAY_ADDRESS" else str(port)
        program = start(**{variable: value})
        assert program.wait() == 1
    example = f"127.0.0.1:{port + 100}" if variable == "SLIPWAY_ADDRESS" else str(port + 100)
    assert program.output().startswith(f"error: Port {port} on 127.0.0.1 is taken by ")
    assert program.output().endswith(
        f"(process {os.getpid()}): choose another, for example {variable}={example}."
    )


def test_one_port_for_pages_and_endpoints_is_refused_in_one_sentence(start: Start) -> None:
    program = start(SLIPWAY_ADDRESS="127.0.0.1:8400", SLIPWAY_DATA_PORT="8400")
    assert program.wait() == 1
    assert program.output() == (
        "error: SLIPWAY_ADDRESS and SLIPWAY_DATA_PORT both ask for port 8400: pages and endpoints need one each, "
        "for example SLIPWAY_DATA_PORT=8410."
    )


def test_a_database_that_does_not_answer_is_refused_in_one_sentence(start: Start, home: Path) -> None:
    program = start(DATABASE_URL="postgresql://slipway:hush@127.0.0.1:1/slipway")
    assert program.wait() == 1
    (said,) = program.lines
    assert said.startswith("error: DATABASE_URL leads to no Postgres that lets Slipway in: ")
    assert "port 1 failed: Connection refused" in said
    assert "hush" not in said
    assert processes_of(home) == {}


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            {"SLIPWAY_HOME": f"{__file__}/home"},
            f"SLIPWAY_HOME {__file__}/home cannot be written to (Not a directory): "
            "point SLIPWAY_HOME at a folder that this user owns.",
        ),
        (
            {"DATABASE_URL": "mysql://127.0.0.1/slipway"},
            "DATABASE_URL must be postgresql://USER:PASSWORD@HOST:PORT/NAME, but it starts with “mysql”.",
        ),
        (
            {"DATABASE_URL": "postgresql://slipway:hu/sh@127.0.0.1/slipway"},
            "DATABASE_URL must be postgresql://USER:PASSWORD@HOST:PORT/NAME, but its host or port cannot be read.",
        ),
        (
            {"SLIPWAY_LEASE_S": "long"},
            'Environment variable "SLIPWAY_LEASE_S" invalid: Not a valid integer.',
        ),
    ],
)
def test_a_variable_that_nothing_can_run_with_is_refused_in_one_sentence(
    environment: dict[str, str], sentence: str
) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "up"],
        cwd=REPOSITORY,
        env=dict(os.environ) | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"Slipway cannot start. {sentence}\n")


@pytest.mark.parametrize("address", ["8400", "127.0.0.1:", "127.0.0.1:99999", "no such host:1"])
def test_an_address_that_is_none_is_refused_in_one_sentence(start: Start, address: str) -> None:
    program = start(SLIPWAY_ADDRESS=address)
    assert program.wait() == 1
    assert program.output() == (
        f"error: SLIPWAY_ADDRESS is '{address}', but must be HOST:PORT such as 127.0.0.1:8400."
    )


ROOT_WITHOUT_NAMESPACES = (
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"',
    "sh",
)


def _can_be_root_without_namespaces() -> bool:
    return (
        subprocess.run([*ROOT_WITHOUT_NAMESPACES, "true"], check=False, capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not _can_be_root_without_namespaces(), reason="this machine has no user namespaces")
def test_root_where_namespaces_are_forbidden_is_refused_in_one_sentence(start: Start, home: Path) -> None:
    program = start(wrapper=ROOT_WITHOUT_NAMESPACES)
    assert program.wait() == 1
    assert program.lines[-1] == (
        "error: Postgres refuses to run as root and this machine allows no user namespaces: "
        "run this as an ordinary user, or set DATABASE_URL to a Postgres that runs already."
    )
    assert processes_of(home) == {}


def test_data_that_is_not_of_this_postgres_is_refused_in_one_sentence(start: Start, home: Path) -> None:
    (home / "postgres").mkdir(mode=0o700)
    (home / "postgres" / "PG_VERSION").write_text("9\n")
    program = start()
    assert program.wait() == 1
    assert program.lines[-1].startswith("error: The embedded Postgres could not be set up: ")
    assert processes_of(home) == {}


def test_a_full_disk_is_refused_in_one_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=123_456_789))
    with pytest.raises(SetupError, match=f"No disk space: {home} has 123 MB free and needs 500 MB"):
        preflight.check_disk(Home(root=home))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=500_000_000))
    preflight.check_disk(Home(root=home))


def test_failed_migrations_stop_everything_in_one_sentence(start: Start, home: Path) -> None:
    program = start(STANDIN_MIGRATE="bad")
    assert program.wait() == 1
    assert program.lines[-1] == "error: The database could not be prepared: relation is gone"
    assert processes_of(home) == {}
