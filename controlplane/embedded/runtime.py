"""What others ask about a running `up`, and the embedded servers alone, for tests and benchmarks."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from controlplane.embedded import leftovers, lock, ports, postgres, procfs, valkey
from controlplane.embedded.errors import SetupError
from controlplane.embedded.generated import generated
from controlplane.embedded.home import Home, write_private
from controlplane.embedded.spawn import child_environment, spawn

FILE = "up.json"
SERVERS_READY_S = 60.0
SERVERS_STOP_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Up:
    """The content of SLIPWAY_HOME/run/up.json, which only its owner can read.

    `started` counts clock ticks since boot; `ready` turns true once the edge reaches the web process;
    `processes` are the pids by name, `ports` the loopback ports by name.
    """

    pid: int
    started: int
    ready: bool
    address: str
    url: str
    data_port: int
    database_url: str
    redis_url: str
    node_url: str
    node_token: str
    secret_key: str
    ports: Mapping[str, int] = field(default_factory=dict)
    processes: Mapping[str, int] = field(default_factory=dict)

    def save(self, home: Home) -> None:
        write_private(home.run / FILE, json.dumps(asdict(self), indent=1))


def running(home: Path) -> Up | None:
    """The `up` that runs on this home now, or None. A file left by a killed one is not believed."""
    try:
        found: dict[str, Any] = json.loads((home.resolve() / "run" / FILE).read_text())
        up = Up(**found)
    except (OSError, ValueError, TypeError):
        return None
    return up if procfs.lives(up.pid, started=up.started) else None


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Embedded Postgres and Valkey, running. The database exists and is empty or as it was left."""

    database_url: str
    redis_url: str
    postgres_pid: int
    valkey_pid: int


@contextmanager
def start_servers(home: Path, *, durable: bool = True) -> Iterator[Servers]:
    """Runs Postgres and Valkey on this home, and stops them on leaving. Takes about a second.

    `durable=False` trades safety at a power cut for speed, for tests. Call it from a thread that outlives
    the servers: they end with it. Raises SetupError.
    """
    place = Home(root=home.resolve())
    place.prepare()
    with lock.hold(place), ExitStack() as stack:
        stack.callback(place.clear_sockets)
        leftovers.stop_leftovers(place)
        secrets = generated(place)
        port = ports.choose(place, ["valkey"])["valkey"]
        postgres.prepare(place, password=secrets.postgres_password, durable=durable)
        valkey.prepare(place, port=port, password=secrets.redis_password, durable=durable)
        database_url = postgres.url(place, password=secrets.postgres_password)
        redis_url = valkey.url(port=port, password=secrets.redis_password)
        run_as = postgres.appear_as()
        database = stack.enter_context(
            _server(place, "postgres", postgres.argv(place, durable=durable), signal.SIGINT, run_as=run_as)
        )
        broker = stack.enter_context(_server(place, "valkey", valkey.argv(place), signal.SIGTERM))
        maintenance = postgres.url(place, password=secrets.postgres_password, database="postgres")
        _wait(database, lambda: postgres.answers(maintenance), log=place.log / "postgres.log")
        _wait(broker, lambda: valkey.answers(redis_url), log=place.log / "valkey.log")
        postgres.create_database(place, password=secrets.postgres_password)
        yield Servers(
            database_url=database_url, redis_url=redis_url, postgres_pid=database.pid, valkey_pid=broker.pid
        )


@contextmanager
def _server(
    home: Home, name: str, argv: tuple[str, ...], stop: signal.Signals, *, run_as: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    environment = child_environment(home=home.root, values={}, reads=())
    with (home.log / f"{name}.log").open("ab") as log:
        child = spawn(
            argv,
            environment=environment,
            cwd=home.root,
            stdout=log.fileno(),
            death_signal=stop,
            run_as=run_as,
        )
    leftovers.remember(home, name=name, pid=child.pid, stop_signal=stop)
    try:
        yield child
    finally:
        child.send_signal(stop)
        try:
            child.wait(SERVERS_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        leftovers.forget(home, name=name)


def _wait(child: subprocess.Popen[bytes], answers: Callable[[], bool], *, log: Path) -> None:
    deadline = time.monotonic() + SERVERS_READY_S
    while not answers():
        if child.poll() is not None or time.monotonic() > deadline:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            name = os.path.splitext(log.name)[0]  # noqa: PTH122  a name, not a path
            raise SetupError(
                "server_not_ready", f"The embedded {name} did not start: {lines[-1] if lines else 'silent'}"
            )
        time.sleep(0.02)
