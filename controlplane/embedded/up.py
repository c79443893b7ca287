"""`up`: the whole product on this machine, from preflight to the last process stopped.

Servers first, then migrations, then the rest; the order and the argv are the process table's. Refused:
writing a secret or a port into the repository, and touching any server that this home did not start.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from controlplane.embedded import edge, leftovers, lock, ports, postgres, preflight, procfs, valkey
from controlplane.embedded.edge import split
from controlplane.embedded.errors import SetupError
from controlplane.embedded.generated import Generated, generated
from controlplane.embedded.home import Home
from controlplane.embedded.journal import Journal
from controlplane.embedded.preflight import Wanted
from controlplane.embedded.processes import (
    ADMIN,
    OWN_LOGIN,
    PREPARE,
    Process,
    Site,
    Tier,
    copies,
    preparation,
    table,
)
from controlplane.embedded.runtime import FILE, Up
from controlplane.embedded.supervisor import NO_HOOKS, Hooks, Supervisor
from optimizer.worker import gpus

READY_WITHIN_S = 60.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

type Table = Callable[[Site], tuple[Process, ...]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything decided before the first process starts."""

    wanted: Wanted
    secrets: Generated
    site: Site
    up: Up

    @property
    def home(self) -> Home:
        return self.wanted.home

    @property
    def bind(self) -> str:
        """Where the edge listens, which is where it is asked unless that is everywhere, or has a name."""
        return f"{_shown(self.wanted.bind)}:{split(self.up.address)[1]}"

    def values(self) -> dict[str, str]:
        """The installation's variables, as the children read them."""
        return {
            "SLIPWAY_HOME": str(self.home.root),
            "SLIPWAY_SECRET_KEY": self.up.secret_key,
            "SLIPWAY_ADDRESS": self.up.address,
            "SLIPWAY_DATA_PORT": str(self.up.data_port),
            "SLIPWAY_NODE_URL": self.up.node_url,
            "SLIPWAY_NODE_TOKEN": self.up.node_token,
            "DATABASE_URL": self.up.database_url,
            "REDIS_URL": self.up.redis_url,
        }


def decide(wanted: Wanted) -> Plan:
    """Checks the machine, stops leftovers, chooses ports. Call it with the home's lock held. Raises SetupError."""
    home = wanted.home
    preflight.check_system()
    preflight.check_disk(home)
    if wanted.database_url:
        preflight.check_database(wanted.database_url)
    secrets = generated(home)
    leftovers.stop_leftovers(home)
    chosen = ports.choose(home, [*_any(wanted), "web", "live", "valkey"])
    port, data_port = wanted.port or chosen["edge"], wanted.data_port or chosen["data"]
    if port == data_port:
        raise SetupError(
            "same_port",
            f"SLIPWAY_ADDRESS and SLIPWAY_DATA_PORT both ask for port {port}: pages and endpoints need one each, "
            f"for example SLIPWAY_DATA_PORT={port + 10}.",
        )
    preflight.check_port(
        wanted.bind,
        port,
        variable="SLIPWAY_ADDRESS",
        example=f"{_shown(wanted.host)}:{port + 100}",
        home=home,
    )
    preflight.check_port(
        "127.0.0.1", data_port, variable="SLIPWAY_DATA_PORT", example=f"{data_port + 100}", home=home
    )
    if wanted.metrics:
        host, metrics_port = split(wanted.metrics)
        preflight.check_port(
            host,
            metrics_port,
            variable="SLIPWAY_METRICS_ADDRESS",
            example=f"{_shown(host)}:{metrics_port + 100}",
            home=home,
        )
    site = Site(
        python=sys.executable,
        web=f"127.0.0.1:{chosen['web']}",
        live=f"127.0.0.1:{chosen['live']}",
        home=home,
        embedded_postgres=wanted.database_url is None,
        embedded_valkey=wanted.redis_url is None,
        metrics=wanted.metrics,
        gpus=tuple(gpus.units(gpus.found().gpus)),
    )
    up = _up(wanted, secrets, address=f"{_shown(wanted.host)}:{port}", data_port=data_port, chosen=chosen)
    return Plan(wanted=wanted, secrets=secrets, site=site, up=up)


def _any(wanted: Wanted) -> list[str]:
    return [name for name, port in (("edge", wanted.port), ("data", wanted.data_port)) if port == 0]


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _up(wanted: Wanted, secrets: Generated, *, address: str, data_port: int, chosen: Mapping[str, int]) -> Up:
    me = procfs.look(os.getpid())
    assert me is not None
    home = wanted.home
    return Up(
        pid=me.pid,
        started=me.started,
        ready=False,
        address=address,
        url=f"http://{address}/",
        data_port=data_port,
        database_url=wanted.database_url or postgres.url(home, password=secrets.postgres_password),
        redis_url=wanted.redis_url or valkey.url(port=chosen["valkey"], password=secrets.redis_password),
        node_url=wanted.node_url or f"unix:{home.sockets}/node.sock",
        node_token=wanted.node_token or secrets.node_token,
        secret_key=wanted.secret_key or secrets.secret_key,
        ports=chosen,
    )


def hooks(plan: Plan) -> dict[str, Hooks]:
    """What the embedded parts need done around their start and stop."""
    home, secrets, up, site = plan.home, plan.secrets, plan.up, plan.site
    maintenance = postgres.url(home, password=secrets.postgres_password, database="postgres")
    return {
        "postgres": Hooks(
            prepare=lambda: postgres.prepare(home, password=secrets.postgres_password),
            answers=lambda: postgres.answers(maintenance),
        ),
        "valkey": Hooks(
            prepare=lambda: valkey.prepare(home, port=up.ports["valkey"], password=secrets.redis_password),
            answers=lambda: valkey.answers(up.redis_url),
        ),
        "edge": Hooks(
            prepare=lambda: edge.prepare(home, address=plan.bind, web=site.web, live=site.live),
            answers=lambda: edge.answers(up.address),
        ),
    }


@dataclass(kw_only=True)
class Run:
    """One life of `up`, from a plan to the end."""

    plan: Plan
    rows: tuple[Process, ...]
    prepare: tuple[str, ...]
    supervisor: Supervisor
    afterwards: Process | None = None
    own_login: bool = False
    ready: bool = False

    def publish(self) -> None:
        """Writes up.json as things stand."""
        replace(self.plan.up, ready=self.ready, processes=self.supervisor.pids()).save(self.plan.home)

    async def bring_up(self) -> None:
        """Returns once the edge answers. Raises SetupError where a server or the migrations do not."""
        known = hooks(self.plan)
        await self._start_servers(known)
        await self._prepare()
        last = [
            self.supervisor.start(row, known.get(row.name, NO_HOOKS))
            for row in self.rows
            if row.tier > Tier.SERVERS
        ]
        answering = asyncio.gather(*(keeper.ready() for keeper in last))
        try:
            await asyncio.wait_for(asyncio.shield(answering), READY_WITHIN_S)
        except TimeoutError:
            self.supervisor.journal.say(f"{self.plan.up.url} does not answer yet; the lines above say why")
            await answering
        self.ready = True
        self.publish()
        self.supervisor.journal.say(f"Slipway is at {self.plan.up.url}")
        if self.plan.wanted.is_everywhere:
            names = self.plan.wanted.hosts or "which is not set"
            self.supervisor.journal.say(f"Other machines must ask for a name in SLIPWAY_HOSTS: {names}")
        self._tell_login()
        if self.afterwards is not None:
            await self._finish_with(self.afterwards)

    def _tell_login(self) -> None:
        """To the terminal and not to the files, and never in the way of the supervision."""
        user, password = ADMIN, self.plan.secrets.admin_password
        if self.own_login:
            user, password = f"{ADMIN}, or another of yours", "as you set it"
        self.supervisor.journal.show(
            f"\n    {self.plan.up.url}\n    user      {user}\n    password  {password}\n\n"
        )

    async def _finish_with(self, row: Process) -> None:
        code, last = await self.supervisor.run_once(row)
        if code:
            self.supervisor.journal.say(f"{row.name} stopped early: {last}")

    async def _start_servers(self, known: Mapping[str, Hooks]) -> None:
        servers = [
            self.supervisor.start(row, known[row.name]) for row in self.rows if row.tier is Tier.SERVERS
        ]
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await asyncio.gather(*(server.ready() for server in servers))
        except TimeoutError as error:
            raise SetupError(
                "servers_not_ready",
                f"Postgres or Valkey did not answer within {READY_WITHIN_S:.0f} s: see {self.plan.home.log}.",
            ) from error
        if self.plan.site.embedded_postgres:
            password = self.plan.secrets.postgres_password
            await asyncio.to_thread(postgres.create_database, self.plan.home, password=password)

    async def _prepare(self) -> None:
        """In a database of ours a newly generated password replaces the old one; in the operator's own it does not."""
        home, password = self.plan.home, self.plan.secrets.admin_password
        ours = self.plan.site.embedded_postgres
        new = ours and not postgres.gave(home, user=ADMIN, password=password)
        command = (*self.prepare, "--new-password") if new else self.prepare
        row = preparation(self.plan.site, admin_password=password, command=command)
        code, last = await self.supervisor.run_once(row)
        if code:
            raise SetupError("prepare_failed", f"The database could not be prepared: {last}")
        self.own_login = last == OWN_LOGIN
        if new:
            postgres.note_given(home, user=ADMIN, password=password)


async def _live(run: Run) -> None:
    """Runs until a stop signal, which stops in order. Ctrl-C after that kills.

    Another SIGTERM does not: make and other wrappers pass on what their whole group got already.
    """
    loop = asyncio.get_running_loop()
    asked, again = asyncio.Event(), asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if asked.is_set() and number == signal.SIGINT:
            again.set()
        asked.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    start = asyncio.create_task(run.bring_up())
    try:
        await _until(start, asked)
        await asked.wait()
        run.supervisor.journal.say("stopping; Ctrl-C kills at once")
    finally:
        start.cancel()
        await asyncio.wait([start])
        stop = asyncio.create_task(run.supervisor.stop())
        await _until(stop, again)
        run.supervisor.kill()
        for keeper in run.supervisor.keepers:
            if keeper.task is not None:
                await asyncio.wait([keeper.task], timeout=1)
        leftovers.kill_all(run.plan.home)


async def _until(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Waits for either; what the task raised is raised here."""
    waiter = asyncio.create_task(event.wait())
    await asyncio.wait([task, waiter], return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if task.done() and not task.cancelled():
        task.result()


def run(
    wanted: Wanted,
    *,
    rows: Table = table,
    prepare: tuple[str, ...] = PREPARE,
    afterwards: Callable[[Site], Process] | None = None,
) -> None:
    """Blocks until a stop signal. `afterwards` runs once, when everything answers. Raises SetupError where
    the start is not possible."""
    wanted.home.prepare()
    with lock.hold(wanted.home):
        plan = decide(wanted)
        chosen = copies(rows(plan.site))
        journal = Journal(home=plan.home, width=max(len(row.name) for row in chosen))
        supervisor = Supervisor(home=plan.home, values=plan.values(), journal=journal)
        last = afterwards(plan.site) if afterwards else None
        life = Run(plan=plan, rows=chosen, prepare=prepare, supervisor=supervisor, afterwards=last)
        supervisor.changed = life.publish
        try:
            asyncio.run(_live(life))
        finally:
            with contextlib.suppress(FileNotFoundError):
                (plan.home.run / FILE).unlink()
            plan.home.clear_sockets()
            journal.close()
