"""A stage for faults: Postgres and Valkey of its own, its own database, and the product's processes on demand.

The test itself looks at the stage's database through the product's models, so its rows are read as the
product reads them; Django's default connection is pointed there while the stage stands.
"""

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from platform import node
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import override_settings

from controlplane.embedded import ports, postgres, valkey
from controlplane.embedded.generated import generated
from controlplane.embedded.home import Home
from controlplane.embedded.processes import Process, Site, table
from controlplane.embedded.spawn import child_environment
from controlplane.settings.environment import REPOSITORY, database
from tests.faults.programs import Program
from tests.faults.waiting import until

LEASE_S = 4
"""A fifth of the product's own, so that a lost lease costs a test seconds. The bounds are in terms of it."""
SPEED = {
    "SLIPWAY_LEASE_S": str(LEASE_S),
    "SLIPWAY_MEASURE_BUDGET_S": "0.2",
}
QUEUE = "optimize.cpu"
PLAIN, WITH_FAULTS = "controlplane", "tests.faults.app"


@dataclass(kw_only=True)
class Server:
    """Postgres or Valkey as the stage runs it: started directly, so that a test can do anything to it."""

    stage: "Stage"
    name: str
    program: Program | None = None

    def start(self) -> None:
        """Returns when it answers."""
        place = self.stage.home
        if self.name == "postgres":
            postgres.prepare(place, password=self.stage.secrets.postgres_password, durable=False)
            argv, run_as = postgres.argv(place), postgres.appear_as()
        else:
            port, password = self.stage.ports["valkey"], self.stage.secrets.redis_password
            valkey.prepare(place, port=port, password=password)
            argv, run_as = valkey.argv(place), None
        environment = child_environment(home=place.root, values={}, reads=())
        self.program = Program.start(
            argv, name=self.name, environment=environment, folder=place.log, run_as=run_as
        )
        until(self.answers, within_s=30, what=f"{self.name} answering")
        connections.close_all()  # the test's own, which an earlier life of the server had broken

    def answers(self) -> bool:
        if self.name == "postgres":
            address = postgres.url(
                self.stage.home, password=self.stage.secrets.postgres_password, database="postgres"
            )
            return postgres.answers(address)
        return valkey.answers(self.stage.values["REDIS_URL"])

    def send(self, number: signal.Signals) -> None:
        assert self.program is not None
        self.program.popen.send_signal(number)

    def stop(self, number: signal.Signals) -> None:
        """Sends the signal and waits for the end."""
        assert self.program is not None
        self.program.popen.send_signal(number)
        self.program.popen.wait(15)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """All of it: what serves a connection is a process of its own."""
        assert self.program is not None
        self.program.freeze()
        try:
            yield
        finally:
            self.program.thaw()


@dataclass(kw_only=True)
class Stage:
    home: Home
    ports: Mapping[str, int]
    programs: list[Program] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.secrets = generated(self.home)
        self.postgres = Server(stage=self, name="postgres")
        self.valkey = Server(stage=self, name="valkey")
        self.values = {
            "SLIPWAY_HOME": str(self.home.root),
            "SLIPWAY_SECRET_KEY": self.secrets.secret_key,
            "SLIPWAY_ADDRESS": f"127.0.0.1:{self.ports['web']}",
            "SLIPWAY_DATA_PORT": str(self.ports["data"]),
            "SLIPWAY_NODE_URL": f"unix:{self.home.sockets}/node.sock",
            "SLIPWAY_NODE_TOKEN": self.secrets.node_token,
            "DATABASE_URL": postgres.url(self.home, password=self.secrets.postgres_password),
            "REDIS_URL": valkey.url(port=self.ports["valkey"], password=self.secrets.redis_password),
        }
        site = Site(
            python=sys.executable,
            web=f"127.0.0.1:{self.ports['web']}",
            live=f"127.0.0.1:{self.ports['live']}",
        )
        self.rows: dict[str, Process] = {row.name: row for row in table(site)}

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['web']}"

    @property
    def live_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['live']}"

    @property
    def scratch(self) -> Path:
        return self.home.root / "scratch"

    def start(
        self, row: str, *, called: str = "", app: str = PLAIN, queue: str = QUEUE, **environment: str
    ) -> Program:
        """A process of the table, with the table's own argv; `called` tells two of a kind apart."""
        process = self.rows[row]
        name = called or row
        other = {f"{row}@%h": f"{name}@%h", PLAIN: app, QUEUE: queue}
        argv = tuple(other.get(part, part) for part in process.argv)
        program = Program.start(
            argv,
            name=name,
            environment=child_environment(home=self.home.root, values=self.values, reads=process.reads)
            | {"PYTHONUNBUFFERED": "1"}
            | SPEED
            | dict(process.environment)
            | environment,
            folder=self.home.log,
        )
        self.programs.append(program)
        return program

    def begin_worker(self, called: str, *, app: str = WITH_FAULTS, **environment: str) -> Program:
        return self.start("worker-optimize", called=called, app=app, **environment)

    def until_ready(self, worker: Program) -> None:
        """Returns when it takes jobs."""
        worker.says(f"{worker.name}@{node()} ready.")

    @contextmanager
    def worker_of_its_own(
        self, called: str, *, app: str = WITH_FAULTS, **environment: str
    ) -> Iterator[tuple[Program, str]]:
        """A worker and the queue that it alone listens to, until the block ends."""
        queue = f"optimize.{called}"
        program = self.start("worker-optimize", called=called, app=app, queue=queue, **environment)
        try:
            self.until_ready(program)
            yield program, queue
        finally:
            program.clean_up()

    def clean_up(self) -> None:
        for program in reversed(self.programs):
            program.clean_up()
        for server in (self.valkey, self.postgres):
            if server.program is not None:
                server.send(signal.SIGCONT)
                server.program.popen.send_signal(
                    signal.SIGQUIT if server is self.postgres else signal.SIGKILL
                )
                server.program.popen.wait(10)

    def logs(self) -> str:
        """For a failing test: the last lines of everything."""
        return "\n".join(
            f"--- {path.stem}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.home.log.glob("*.log"))
        )


@contextmanager
def stage(blocker: Any) -> Iterator[Stage]:
    """`blocker` is pytest-django's: the stage's database is not the one that it guards."""
    root = Path(tempfile.mkdtemp(prefix="slipway-faults-"))
    place = Home(root=root)
    place.prepare()
    vendor = REPOSITORY / ".slipway" / "vendor"
    if vendor.is_dir():
        (root / "vendor").symlink_to(vendor)
    stands = Stage(home=place, ports=ports.choose(place, ["web", "live", "valkey", "data"]))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        stack.callback(place.clear_sockets)
        stack.callback(stands.clean_up)
        stands.postgres.start()
        stands.valkey.start()
        postgres.create_database(place, password=stands.secrets.postgres_password)
        stack.enter_context(blocker.unblock())
        stack.enter_context(_settings_of(stands))
        call_command("migrate", interactive=False, verbosity=0)
        yield stands


@contextmanager
def _settings_of(stands: Stage) -> Iterator[None]:
    """Database and artifacts of the stage, also in threads of the test."""
    connection = connections["default"]
    connection.close()
    before = dict(connection.settings_dict)
    connection.settings_dict.update(
        database(stands.values["DATABASE_URL"], lease_s=settings.ENVIRONMENT.lease_s)
    )
    environment = replace(
        settings.ENVIRONMENT,
        home=stands.home.root,
        database_url=stands.values["DATABASE_URL"],
        redis_url=stands.values["REDIS_URL"],
        lease_s=LEASE_S,
    )
    artifacts: dict[str, Any] = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": stands.home.root / "artifacts"},
    }
    storages = {**settings.STORAGES, "artifacts": artifacts}
    try:
        with override_settings(
            ENVIRONMENT=environment, STORAGES=storages, SECRET_KEY=stands.secrets.secret_key
        ):
            yield
    finally:
        connections.close_all()
        connection.settings_dict.clear()
        connection.settings_dict.update(before)
