"""The processes of the product, as one table: `up`, docker-compose and the Helm chart are made from it.

A row says what runs, what it needs, what it may read and how it is stopped; where it listens is a value
of the `Site`, because that differs between this machine and a container. Postgres, Valkey and the edge
are rows only where they are embedded, `metrics-api` only where a cluster's autoscalers are to be answered.
"""

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum

from controlplane.embedded import edge, postgres, valkey
from controlplane.embedded.edge import split
from controlplane.embedded.home import Home
from controlplane.embedded.spawn import IMPORT_TOKENS, INSTALLATION, KEDA_TOKEN
from optimizer.queues import GPU_QUEUE
from optimizer.toolchains import CPU_QUEUE


class Kind(StrEnum):
    PYTHON = "python"
    BINARY = "binary"


class Tier(IntEnum):
    """Tiers start in this order and stop in the opposite one; rows of one tier start and stop together."""

    SERVERS = 1
    WORK = 2
    WEB = 3
    EDGE = 4


@dataclass(frozen=True, kw_only=True)
class Container:
    """What docker-compose says beyond the argv: the image, the port inside, and which of our volumes.

    `network_of` is the row whose network it shares, where addresses on this machine must mean the same; `gpu` the
    one that it has to itself.
    """

    image: str
    port: int | None = None
    network_of: str | None = None
    gpu: str | None = None
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Process:
    """One row. `reads` names the installation's variables that it is given, and no others.

    `death_signal` is what the kernel sends it when `up` is killed; `grace_s` is what it may take to stop.
    `instances` is how many may run beside each other under one name.
    """

    name: str
    argv: tuple[str, ...]
    tier: Tier
    kind: Kind = Kind.PYTHON
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 2.0
    instances: int = 1
    run_as: int | None = None
    container: Container


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where one installation's processes listen, and which GPUs have a worker each, as CUDA_VISIBLE_DEVICES and
    container engines name them. `home` is None where no part is embedded, `metrics` empty where nobody asks for
    metrics."""

    python: str
    web: str
    live: str
    home: Home | None = None
    embedded_postgres: bool = False
    embedded_valkey: bool = False
    metrics: str = ""
    gpus: tuple[str, ...] = ()


CONTAINERS = Site(python="python", web="0.0.0.0:8000", live="0.0.0.0:8001", metrics="0.0.0.0:8443")
"""The site that docker-compose and the chart describe."""

ROOT_IS_FINE = "ignore:You're running the worker with superuser privileges"
"""The worker never opens untrusted bytes itself; the sandbox does."""

SEES = "CUDA_VISIBLE_DEVICES"
"""The variable by which a process and all that it starts are held to the GPUs that it names."""

NODE_READS = ("SLIPWAY_HOME", "SLIPWAY_DATA_PORT", "SLIPWAY_NODE_URL", "SLIPWAY_NODE_TOKEN")
"""The node runs other people's models: it is given neither database, broker nor key."""

METRICS_READS = (
    "SLIPWAY_HOME",
    "REDIS_URL",
    "SLIPWAY_METRICS_ADDRESS",
    "SLIPWAY_METRICS_CERT",
    "SLIPWAY_METRICS_KEY",
    "SLIPWAY_METRICS_CLIENT_CA",
    "SLIPWAY_METRICS_CLIENT_NAMES",
    KEDA_TOKEN,
)
"""It answers a cluster from Redis: it is given neither database nor key."""


PREPARE = ("manage.py", "prepare")
ADMIN = "admin"
ADMIN_PASSWORD = "SLIPWAY_ADMIN_PASSWORD"  # noqa: S105  the name of a variable
OWN_LOGIN = "People log in as they did before; the generated password is not used."
"""The last that the preparation says where it made and changed nobody, and the password is not the admin's."""


def preparation(site: Site, *, admin_password: str, command: tuple[str, ...] = PREPARE) -> Process:
    """What runs to its end between the servers and the rest."""
    return Process(
        name="prepare",
        argv=(site.python, *command),
        tier=Tier.WORK,
        needs=("postgres", "valkey"),
        reads=INSTALLATION,
        environment={ADMIN_PASSWORD: admin_password},
        container=Container(image="web", volumes=("home",)),
    )


def copies(rows: Iterable[Process]) -> tuple[Process, ...]:
    """Each row as many times as it has instances, under names of their own."""
    return tuple(
        row if row.instances == 1 else replace(row, name=f"{row.name}-{number}", instances=1)
        for row in rows
        for number in range(1, row.instances + 1)
    )


def table(site: Site) -> tuple[Process, ...]:
    """The rows in the order in which they start."""
    return (*_servers(site), *_work(site), *_metrics(site), _live(site), _web(site), *_edge(site))


def _servers(site: Site) -> tuple[Process, ...]:
    if site.home is None:
        return ()
    rows = (_postgres(site.home), _valkey(site.home))
    wanted = (site.embedded_postgres, site.embedded_valkey)
    return tuple(row for row, embedded in zip(rows, wanted, strict=True) if embedded)


def _postgres(home: Home) -> Process:
    """SIGINT is its fast shutdown: sessions are ended, the data is left clean."""
    return Process(
        name="postgres",
        argv=postgres.argv(home),
        tier=Tier.SERVERS,
        kind=Kind.BINARY,
        stop_signal=signal.SIGINT,
        death_signal=signal.SIGINT,
        grace_s=5.0,
        run_as=postgres.appear_as(),
        container=Container(image="postgres:18", port=5432, volumes=("postgres",)),
    )


def _valkey(home: Home) -> Process:
    return Process(
        name="valkey",
        argv=valkey.argv(home),
        tier=Tier.SERVERS,
        kind=Kind.BINARY,
        grace_s=3.0,
        container=Container(image="valkey/valkey:9", port=6379, volumes=("valkey",)),
    )


def _work(site: Site) -> tuple[Process, ...]:
    return (
        _node(site),
        _command(site, "dispatcher"),
        _beside_the_node(_command(site, "collector")),
        _beside_the_node(_command(site, "load")),
        _importer(site),
        _without_gpus(site, _worker(site, name="worker-optimize", queue=CPU_QUEUE, concurrency=1)),
        *(_gpu_worker(site, number, gpu) for number, gpu in enumerate(site.gpus, start=1)),
        _without_gpus(site, _worker(site, name="worker-rollouts", queue="rollouts", concurrency=2)),
    )


def _node(site: Site) -> Process:
    """Its stop drains the replicas; its sudden death leaves them serving, to be adopted by the next node."""
    return Process(
        name="node",
        argv=(site.python, "-m", "deployments.targets.local.node"),
        tier=Tier.WORK,
        reads=NODE_READS,
        death_signal=signal.SIGKILL,
        grace_s=7.0,
        container=Container(image="worker", port=8410, volumes=("home",)),
    )


def _command(site: Site, name: str) -> Process:
    return Process(
        name=name,
        argv=(site.python, "manage.py", name),
        tier=Tier.WORK,
        needs=("postgres", "valkey"),
        reads=INSTALLATION,
        container=Container(image="web", volumes=("home",)),
    )


def _importer(site: Site) -> Process:
    """The only one with the tokens of registries elsewhere. It looks at what it fetched, and its grace is for that."""
    row = _command(site, "importer")
    return replace(row, reads=(*INSTALLATION, *IMPORT_TOKENS), grace_s=4.0)


def _beside_the_node(row: Process) -> Process:
    """Asks endpoints and replicas under their addresses, which are those of the node's machine."""
    return replace(row, container=replace(row.container, network_of="node"))


def _worker(site: Site, *, name: str, queue: str, concurrency: int) -> Process:
    """SIGTERM is remapped to the stop that tells the pool, which hands running work back: `core.stopping`."""
    options = ("--loglevel", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat")
    return Process(
        name=name,
        argv=(
            *(site.python, "-m", "celery", "-q", "-A", "controlplane", "worker"),
            *("-n", f"{name}@%h", "-Q", queue, "-c", str(concurrency), *options),
        ),
        tier=Tier.WORK,
        needs=("postgres", "valkey"),
        reads=INSTALLATION,
        environment={"REMAP_SIGTERM": "SIGQUIT", "PYTHONWARNINGS": ROOT_IS_FINE},
        grace_s=6.0,
        container=Container(image="worker", volumes=("home",)),
    )


def _gpu_worker(site: Site, number: int, gpu: str) -> Process:
    """One for each GPU: two builds or measurements on one would spoil each other."""
    row = _worker(site, name=f"worker-gpu-{number}", queue=GPU_QUEUE, concurrency=1)
    return replace(
        row,
        environment={**row.environment, SEES: gpu},
        container=replace(row.container, gpu=gpu),
    )


def _without_gpus(site: Site, row: Process) -> Process:
    """Where GPUs have workers of their own, no other takes their jobs or seems to have them."""
    return replace(row, environment={**row.environment, SEES: ""}) if site.gpus else row


def _metrics(site: Site) -> tuple[Process, ...]:
    """Once, because copies on one machine would need a port each; a cluster runs two behind its Service."""
    if not site.metrics:
        return ()
    row = Process(
        name="metrics-api",
        argv=(site.python, "manage.py", "metrics_api"),
        tier=Tier.WEB,
        needs=("valkey",),
        reads=METRICS_READS,
        container=Container(image="web", port=split(site.metrics)[1]),
    )
    return (row,)


def _live(site: Site) -> Process:
    host, port = split(site.live)
    return Process(
        name="live",
        argv=(
            *(
                site.python,
                "-m",
                "uvicorn",
                "controlplane.live:application",
                "--host",
                host,
                "--port",
                str(port),
            ),
            *("--timeout-graceful-shutdown", "5", "--timeout-keep-alive", "75", "--no-access-log"),
        ),
        tier=Tier.WEB,
        needs=("postgres",),
        reads=INSTALLATION,
        container=Container(image="web", port=8001),
    )


def _web(site: Site) -> Process:
    """A thread is held while an upload streams or a signature is read. Should all uploads fall to one worker, two
    threads of it still answer.

    Each worker takes whatever connections the edge may make: those beyond granian's `--backpressure` would wait,
    with the requests in them, until idle ones are closed.
    """
    host, port = split(site.web)
    return Process(
        name="web",
        argv=(
            *(site.python, "-m", "granian", "--interface", "wsgi", "controlplane.wsgi:application"),
            *("--host", host, "--port", str(port), "--http", "1", "--no-ws"),
            *(
                "--workers",
                "2",
                "--blocking-threads",
                str(edge.UPLOADS_AT_ONCE + 2),
                "--backlog",
                "1024",
                "--backpressure",
                str(edge.MAX_CONNECTIONS),
            ),
            *("--respawn-failed-workers", "--respawn-interval", "0.2", "--workers-kill-timeout", "2"),
            *("--log-level", "warning"),
        ),
        tier=Tier.WEB,
        needs=("postgres",),
        reads=INSTALLATION,
        container=Container(image="web", port=8000, volumes=("home",)),
    )


def _edge(site: Site) -> tuple[Process, ...]:
    """Its grace is what it waits for answers that are under way, and a second for Envoy's end."""
    if site.home is None:
        return ()
    row = Process(
        name="edge",
        argv=edge.argv(site.home, python=site.python),
        tier=Tier.EDGE,
        kind=Kind.BINARY,
        needs=("web", "live"),
        grace_s=2.0,
        container=Container(image="envoyproxy/envoy:v1.40.0", port=8400),
    )
    return (row,)
