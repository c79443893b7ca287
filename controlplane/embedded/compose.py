"""docker-compose.yml, made from the process table so that the two cannot differ.

`manage.py compose` writes it; a test holds the committed file equal. Postgres and Redis are services of their
own, the edge is Envoy with the same routes as on one machine. In containers the node's replicas live and die
with its container, and what asks them for their figures shares its network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from controlplane.embedded import edge
from controlplane.embedded.processes import CONTAINERS, SEES, Process, preparation, table
from controlplane.embedded.spawn import TOKENS

HEADER = """\
# Made from the process table in controlplane/embedded/processes.py by `manage.py compose`; edit that.
# Needs a .env file with SLIPWAY_SECRET_KEY, SLIPWAY_NODE_TOKEN, POSTGRES_PASSWORD, REDIS_PASSWORD and
# SLIPWAY_ADMIN_PASSWORD. `docker compose up --build`, then log in at http://127.0.0.1:8400/ as admin with the
# last of these, which is read only while nobody exists. Endpoints answer at http://127.0.0.1:8410/.
# Where the host has NVIDIA GPUs and the container toolkit, build with
# --build-arg TOOLCHAINS="openvino tensorrt cuda torch sklearn", and `docker compose --profile gpu up` starts a worker
# for GPU 0 too. For others, or for MIG instances, name them all: `manage.py compose --gpus 0 1 MIG-8f3b...`.
# Where a cluster's autoscalers are to scale on Slipway's signals, put tls.crt and tls.key for the names under which
# the cluster calls this host, and its front-proxy CA as client-ca.crt, into the folder SLIPWAY_METRICS_TLS
# (./metrics-tls), and `docker compose --profile cluster up` serves external.metrics.k8s.io on port 8443.
# Checked statically, by tests: it was not exercised where no container engine runs.
"""
FIRST_GPU = ("0",)
EDGE_PORT = 8400
DATA_PORT = 8410
METRICS_PORT = 8443
METRICS_TLS = "/run/slipway/metrics-tls"
VALUES: Mapping[str, str] = {
    "SLIPWAY_HOME": "/var/lib/slipway",
    "SLIPWAY_SECRET_KEY": "${SLIPWAY_SECRET_KEY:?}",
    "SLIPWAY_ADDRESS": f"127.0.0.1:{EDGE_PORT}",
    "SLIPWAY_DATA_PORT": str(DATA_PORT),
    "SLIPWAY_NODE_URL": "http://node:8411",
    "SLIPWAY_NODE_TOKEN": "${SLIPWAY_NODE_TOKEN:?}",
    "DATABASE_URL": "postgresql://slipway:${POSTGRES_PASSWORD:?}@postgres:5432/slipway",
    "REDIS_URL": "redis://:${REDIS_PASSWORD:?}@redis:6379/0",
    "SLIPWAY_METRICS_ADDRESS": f"0.0.0.0:{METRICS_PORT}",
    "SLIPWAY_METRICS_CERT": f"{METRICS_TLS}/tls.crt",
    "SLIPWAY_METRICS_KEY": f"{METRICS_TLS}/tls.key",
    "SLIPWAY_METRICS_CLIENT_CA": f"{METRICS_TLS}/client-ca.crt",
    "SLIPWAY_METRICS_CLIENT_NAMES": "${SLIPWAY_METRICS_CLIENT_NAMES:-}",
    **{name: f"${{{name}:-}}" for name in TOKENS},
}
HOSTS = "SLIPWAY_HOSTS"


def document(gpus: Sequence[str] = FIRST_GPU) -> dict[str, Any]:
    """The compose file as data: one service per row of the table, the servers, the edge and the migration. The workers
    of `gpus` (indices or UUIDs) are started on request only: where there are none, nothing else would start."""
    rows = table(replace(CONTAINERS, gpus=tuple(gpus)))
    services = (
        _servers() | {"prepare": _prepare()} | {row.name: _service(row) for row in rows} | {"edge": _edge()}
    )
    return {
        "name": "slipway",
        "services": services,
        "configs": {"edge": {"file": "./install/edge.json"}},
        "volumes": {"postgres": {}, "redis": {}, "home": {}},
    }


def text(gpus: Sequence[str] = FIRST_GPU) -> str:
    return HEADER + yaml.safe_dump(document(gpus), sort_keys=False, width=110)


def _image(name: str) -> dict[str, Any]:
    return {"image": f"slipway-{name}", "build": {"context": ".", "dockerfile": f"install/{name}.Dockerfile"}}


def _service(row: Process) -> dict[str, Any]:
    service = _image(row.container.image) | {
        "command": list(row.argv),
        "environment": {name: VALUES[name] for name in row.reads}
        | dict(row.environment)
        | {HOSTS: "${SLIPWAY_HOSTS:-edge}"},
        "depends_on": {"prepare": {"condition": "service_completed_successfully"}},
        "stop_signal": row.stop_signal.name,
        "stop_grace_period": f"{max(10, round(row.grace_s) + 5)}s",
        "restart": "unless-stopped",
    }
    if row.container.volumes:
        service["volumes"] = [f"{name}:/var/lib/slipway" for name in row.container.volumes]
    if row.container.network_of:
        service["network_mode"] = f"service:{row.container.network_of}"
    if row.container.gpu is not None:
        service |= _on_gpu(row.container.gpu)
        service["environment"][SEES] = "0"  # in there it is the only one
    if row.name == "node":
        service["environment"]["SLIPWAY_DATA_HOST"] = "0.0.0.0"  # noqa: S104  the container's own network
        service["ports"] = [f"127.0.0.1:{DATA_PORT}:{DATA_PORT}"]
    if row.name == "metrics-api":
        service |= _for_a_cluster()
    return service


def _for_a_cluster() -> dict[str, Any]:
    """On every address of the host, because clusters are elsewhere; certificates guard it. On request only, because
    without them it cannot start."""
    return {
        "profiles": ["cluster"],
        "ports": [f"{METRICS_PORT}:{METRICS_PORT}"],
        "volumes": [f"${{SLIPWAY_METRICS_TLS:-./metrics-tls}}:{METRICS_TLS}:ro"],
    }


def _on_gpu(gpu: str) -> dict[str, Any]:
    """`utility` brings nvidia-smi, by which a worker finds out what it has."""
    device = {"driver": "nvidia", "device_ids": [gpu], "capabilities": ["gpu", "compute", "utility"]}
    return {"profiles": ["gpu"], "deploy": {"resources": {"reservations": {"devices": [device]}}}}


def _prepare() -> dict[str, Any]:
    row = preparation(CONTAINERS, admin_password="${SLIPWAY_ADMIN_PASSWORD:?}")  # noqa: S106  its name
    return _service(row) | {
        "depends_on": {name: {"condition": "service_healthy"} for name in ("postgres", "redis")},
        "restart": "on-failure",
    }


def _servers() -> dict[str, Any]:
    return {
        "postgres": {
            "image": "postgres:18",
            "environment": {
                "POSTGRES_USER": "slipway",
                "POSTGRES_DB": "slipway",
                "POSTGRES_PASSWORD": "${POSTGRES_PASSWORD:?}",
            },
            "healthcheck": {"test": ["CMD", "pg_isready", "-U", "slipway"], "interval": "2s", "retries": 30},
            "volumes": ["postgres:/var/lib/postgresql"],
            "restart": "unless-stopped",
        },
        "redis": {
            "image": "valkey/valkey:9",
            "command": [
                *("valkey-server", "--appendonly", "yes", "--appendfsync", "everysec"),
                *("--maxmemory-policy", "noeviction", "--requirepass", "${REDIS_PASSWORD:?}"),
            ],
            "healthcheck": {
                "test": ["CMD-SHELL", 'valkey-cli -a "$$REDIS_PASSWORD" ping'],
                "interval": "2s",
                "retries": 30,
            },
            "environment": {"REDIS_PASSWORD": "${REDIS_PASSWORD:?}"},
            "volumes": ["redis:/data"],
            "restart": "unless-stopped",
        },
    }


def _edge() -> dict[str, Any]:
    return {
        "image": "envoyproxy/envoy:v1.40.0",
        "command": ["envoy", "-c", "/etc/envoy/edge.json", "--concurrency", "2"],
        "configs": [{"source": "edge", "target": "/etc/envoy/edge.json"}],
        "depends_on": ["web", "live"],
        "ports": [f"127.0.0.1:{EDGE_PORT}:{EDGE_PORT}"],
        "restart": "unless-stopped",
    }


def edge_config() -> dict[str, Any]:
    """Envoy's bootstrap in the composition, for install/edge.json."""
    return edge.config(address=f"0.0.0.0:{EDGE_PORT}", web="web:8000", live="live:8001")
