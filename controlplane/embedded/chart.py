"""What the Helm chart in install/chart/slipway knows of the processes, made from their table so that they agree.

`manage.py chart` writes the chart's processes.yaml, over which its templates range; a test holds the committed file
equal. What differs between two installations stands in values.yaml, never here. There is no Celery beat to install:
the dispatcher owns time. Refused: writing whole manifests from here, whose every line somebody's `--set` may have to
change.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import yaml

from controlplane.embedded.compose import FIRST_GPU
from controlplane.embedded.processes import (
    ADMIN_PASSWORD,
    CONTAINERS,
    NODE_READS,
    SEES,
    Process,
    preparation,
    table,
)
from controlplane.embedded.spawn import IMPORT_TOKENS, KEDA_TOKEN

FOLDER = "install/chart/slipway"
LEFT_OUT: Mapping[str, str] = {
    "edge": "the Ingress or the Gateway has its routes, and the platform's proxy its work",
    "node": "its replicas are processes of one machine; in a cluster they are pods of the target kubernetes",
    "postgres": "it is external, and so are its backups",
    "valkey": "it is external; any Redis or Valkey that never evicts",
}
"""The rows that a cluster does not get, and why."""

SECRETS = ("SLIPWAY_SECRET_KEY", "DATABASE_URL", "REDIS_URL", *IMPORT_TOKENS, KEDA_TOKEN)
GIVEN = (
    *("SLIPWAY_HOME", "SLIPWAY_ADDRESS"),
    *("SLIPWAY_METRICS_ADDRESS", "SLIPWAY_METRICS_CERT", "SLIPWAY_METRICS_KEY"),
    *("SLIPWAY_METRICS_CLIENT_CA", "SLIPWAY_METRICS_CLIENT_NAMES"),
)
"""What is no secret, and the templates give: the first two to all, the others to who ends TLS."""
OF_THE_NODE = {*NODE_READS} - {*GIVEN}

STOP_MARGIN_S = 30
"""Beyond a process's own grace: the endpoints hear of its end first, and a node that is drained is a busy one."""
POOL = "worker-gpu"


class Access(StrEnum):
    """What a process does with the cluster's API. One that does neither is given no token."""

    READS = "reads"
    WRITES = "writes"


@dataclass(frozen=True, kw_only=True)
class InCluster:
    """What only a cluster asks of a process; the defaults are what a new row of the table gets.

    `copies` run beside each other. `single`: a second one would do the same work again, so that an upgrade stops the
    old one first. `alive` and `ready` are paths; a row with a port and without them is asked for a connection.
    `outbound`: it reaches more than the database and the broker. `front_end`: it serves the files that its image has
    in SLIPWAY_HOME. `serves_tls`: it ends TLS itself, and its Service is at 443. `switch` is the value without which it
    does not run.
    """

    copies: int = 1
    single: bool = False
    alive: str | None = None
    ready: str | None = None
    access: Access | None = None
    outbound: bool = False
    front_end: bool = False
    serves_tls: bool = False
    switch: str | None = None


IN_CLUSTER: Mapping[str, InCluster] = {
    "web": InCluster(
        copies=2, alive="/healthz", ready="/readyz", access=Access.READS, outbound=True, front_end=True
    ),
    "live": InCluster(copies=2, alive="/live/health", ready="/live/health"),
    "dispatcher": InCluster(copies=2),
    "collector": InCluster(single=True, access=Access.READS, outbound=True),
    "load": InCluster(single=True, outbound=True),
    "importer": InCluster(outbound=True),
    "worker-rollouts": InCluster(access=Access.WRITES, outbound=True),
    "metrics-api": InCluster(copies=2, alive="/livez", ready="/readyz", serves_tls=True, switch="metricsApi"),
}


def document() -> dict[str, Any]:
    """The migration and the processes by name, the GPU workers as one that every pool in the values copies.

    Raises LookupError for a row that reads what no installation in a cluster is given.
    """
    rows = table(replace(CONTAINERS, gpus=FIRST_GPU))
    migration = preparation(CONTAINERS, admin_password="")
    return {
        "migration": _described(migration) | {"secrets": [*_secrets(migration), ADMIN_PASSWORD]},
        "processes": {row.name: _described(row) for row in map(_pooled, rows) if row.name not in LEFT_OUT},
    }


def text() -> str:
    lines = [
        "Made from the process table in controlplane/embedded/processes.py by `manage.py chart`; edit that.",
        "What a cluster adds to a row is in controlplane/embedded/chart.py. What differs between installations is in",
        "values.yaml. There is no Celery beat: the dispatcher owns time, and is safe in two copies. Left out:",
        *(f"- {name}: {why}." for name, why in LEFT_OUT.items()),
    ]
    return "".join(f"# {line}\n" for line in lines) + yaml.safe_dump(
        document(), sort_keys=False, width=110, default_flow_style=None
    )


def _described(row: Process) -> dict[str, Any]:
    more = IN_CLUSTER.get(row.name, InCluster())
    facts = {
        "image": row.container.image,
        "command": list(row.argv),
        "secrets": _secrets(row),
        "environment": {name: value for name, value in row.environment.items() if name != ADMIN_PASSWORD},
        "stopSeconds": math.ceil(row.grace_s) + STOP_MARGIN_S,
        "copies": more.copies,
        "single": more.single,
        "pools": row.name == POOL,
        "storage": "home" in row.container.volumes and row.name != "prepare",
        "frontEnd": more.front_end,
        "port": row.container.port,
        "servesTls": more.serves_tls,
        "alive": more.alive,
        "ready": more.ready,
        "access": more.access and str(more.access),
        "outbound": more.outbound,
        "switch": more.switch,
    }
    return {name: value for name, value in facts.items() if value not in (None, False, {}, [])}


def _secrets(row: Process) -> list[str]:
    """A process has no secret that it does not read."""
    unknown = {*row.reads} - {*SECRETS} - {*GIVEN} - OF_THE_NODE
    if unknown:
        raise LookupError(
            f"{row.name} reads {', '.join(sorted(unknown))}: say in {__name__} where a cluster gets it from."
        )
    return [name for name in row.reads if name in SECRETS]


def _pooled(row: Process) -> Process:
    """Each of its pods sees one GPU, whichever the node's device plugin gave it, and has a host name of its own."""
    if row.container.gpu is None:
        return row
    return replace(
        row,
        name=POOL,
        argv=tuple(part.replace(f"{row.name}@", f"{POOL}@") for part in row.argv),
        environment={**row.environment, SEES: "0"},
    )
