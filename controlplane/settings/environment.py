"""Reads the environment once, typed. Everything that differs between two installations is here.

Where no DATABASE_URL is given and `manage.py up` is running on this SLIPWAY_HOME, its servers are used,
so that `manage.py shell` in a second terminal just works. Refused: settings that read os.environ themselves.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from environs import Env, EnvError, ValidationError, validate

REPOSITORY = Path(__file__).resolve().parents[2]
DEVELOPMENT_KEY = "not-secret-until-up-generates-one"
DATABASE_FORM = "DATABASE_URL must be postgresql://USER:PASSWORD@HOST:PORT/NAME"
METRICS_ADDRESS = "127.0.0.1:8443"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
SILENCE = {
    "tcp_user_timeout": 5000,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
"""A database whose machine or link went away is given up well within a lease, so that it can be asked anew. Over a
Unix socket these mean nothing."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """`hosts` are the names under which it answers; `address` is where it is asked. `tls` says that browsers
    ask by https, which ends at a proxy before it; `client_ip_header` is where that proxy writes the client's address,
    whatever the client sent.

    `max_upload_bytes` bounds one uploaded model; `lease_s` is how long a silent worker keeps its job.

    `toolchains` is the folder of the environments that some techniques need; see `optimizer.toolchains`.

    `technique_wall_s` is what one step of a recipe may take, `measure_budget_s` what its measurement takes,
    `job_memory_bytes` the private memory of each process that builds or measures;
    `max_queued_jobs` of one team may wait, `max_running_jobs` run at once (0: as many as there are workers);
    `worker_finish_s` is how long a worker that is told to stop lets its job go on before it gives it back.

    `hf_endpoint` and `mlflow_uri` are where models are imported from, with their tokens; an empty one is switched off.
    `torchscript` allows files that run code when a job opens them, each after an admin's word.
    `import_hosts` are those that these may redirect to, with their subdomains; `import_wall_s` is what one import may
    take.

    `metrics_address` is where autoscalers ask for signals, over TLS with `metrics_cert` and `metrics_key`: all three
    are needed. `metrics_client_ca` signs the front proxy of the cluster, whose certificate names one of
    `metrics_client_names` (empty: any); `keda_token` lets KEDA in.

    `in_cluster` lets admins of teams add the cluster that Slipway itself runs in, with Slipway's own account.
    """

    home: Path
    toolchains: Path
    secret_key: str
    debug: bool
    database_url: str
    redis_url: str
    address: str
    data_port: int
    node_url: str
    node_token: str
    hosts: tuple[str, ...]
    tls: bool
    client_ip_header: str
    max_upload_bytes: int
    lease_s: int
    technique_wall_s: int
    job_memory_bytes: int
    measure_budget_s: float
    worker_finish_s: float
    intake_wall_s: int
    intake_memory_bytes: int
    max_queued_jobs: int
    max_running_jobs: int
    hf_endpoint: str
    hf_token: str
    mlflow_uri: str
    mlflow_token: str
    mlflow_user: str
    import_hosts: tuple[str, ...]
    import_wall_s: int
    torchscript: bool
    metrics_address: str
    metrics_cert: str
    metrics_key: str
    metrics_client_ca: str
    metrics_client_names: tuple[str, ...]
    keda_token: str
    in_cluster: bool


def _running_up(home: Path) -> dict[str, Any]:
    try:
        found = json.loads((home / "run" / "up.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_environment() -> Environment:
    """Raises SystemExit with a sentence that names the variable whose value cannot be read."""
    try:
        return _read(Env())
    except EnvError as error:
        raise refusal(str(error)) from error


def _read(env: Env) -> Environment:
    home = Path(env.str("SLIPWAY_HOME", str(REPOSITORY / ".slipway"))).resolve()
    up = _running_up(home)
    address = env.str("SLIPWAY_ADDRESS", up.get("address", "127.0.0.1:8400"))
    return Environment(
        home=home,
        toolchains=Path(env.str("SLIPWAY_TOOLCHAINS", str(REPOSITORY / ".slipway" / "toolchains"))).resolve(),
        secret_key=env.str("SLIPWAY_SECRET_KEY", up.get("secret_key", DEVELOPMENT_KEY)),
        debug=env.bool("SLIPWAY_DEBUG", False),
        database_url=env.str("DATABASE_URL", up.get("database_url", "postgresql:///slipway")),
        redis_url=env.str("REDIS_URL", up.get("redis_url", "redis://127.0.0.1:6379/0")),
        address=address,
        data_port=env.int("SLIPWAY_DATA_PORT", int(up.get("data_port", 8410))),
        node_url=env.str("SLIPWAY_NODE_URL", up.get("node_url", f"unix:{home}/run/node.sock")),
        node_token=env.str("SLIPWAY_NODE_TOKEN", up.get("node_token", "")),
        hosts=(*LOOPBACK, address.rpartition(":")[0], *env.list("SLIPWAY_HOSTS", [])),
        tls=env.bool("SLIPWAY_TLS", False),
        client_ip_header=env.str("SLIPWAY_CLIENT_IP_HEADER", "X-Envoy-External-Address"),
        max_upload_bytes=env.int("SLIPWAY_MAX_UPLOAD_BYTES", 2 * 1024**3),
        lease_s=env.int("SLIPWAY_LEASE_S", 20),
        technique_wall_s=env.int("SLIPWAY_TECHNIQUE_WALL_S", 1800),
        job_memory_bytes=env.int("SLIPWAY_JOB_MEMORY_BYTES", 8 * 1024**3),
        measure_budget_s=env.float("SLIPWAY_MEASURE_BUDGET_S", 20),
        worker_finish_s=env.float("SLIPWAY_WORKER_FINISH_S", 2.5),
        intake_wall_s=env.int("SLIPWAY_INTAKE_WALL_S", 60),
        intake_memory_bytes=env.int("SLIPWAY_INTAKE_MEMORY_BYTES", 3 * 1024**3),
        max_queued_jobs=env.int("SLIPWAY_MAX_QUEUED_JOBS", 5000),
        max_running_jobs=env.int("SLIPWAY_MAX_RUNNING_JOBS", 0, validate=validate.Range(min=0)),
        hf_endpoint=env.str("SLIPWAY_HF_ENDPOINT", "https://huggingface.co", validate=_web_address),
        hf_token=env.str("SLIPWAY_HF_TOKEN", ""),
        mlflow_uri=env.str("SLIPWAY_MLFLOW_TRACKING_URI", "", validate=_web_address),
        mlflow_token=env.str("SLIPWAY_MLFLOW_TOKEN", ""),
        mlflow_user=env.str("SLIPWAY_MLFLOW_USER", ""),
        import_hosts=tuple(env.list("SLIPWAY_IMPORT_HOSTS", ["huggingface.co", "hf.co"])),
        torchscript=env.bool("SLIPWAY_TORCHSCRIPT", False),
        import_wall_s=env.int("SLIPWAY_IMPORT_WALL_S", 3600, validate=validate.Range(min=1)),
        metrics_address=env.str("SLIPWAY_METRICS_ADDRESS", METRICS_ADDRESS, validate=_listening_address),
        metrics_cert=env.str("SLIPWAY_METRICS_CERT", ""),
        metrics_key=env.str("SLIPWAY_METRICS_KEY", ""),
        metrics_client_ca=env.str("SLIPWAY_METRICS_CLIENT_CA", ""),
        metrics_client_names=_names(env.list("SLIPWAY_METRICS_CLIENT_NAMES", [])),
        keda_token=env.str("SLIPWAY_KEDA_TOKEN", ""),
        in_cluster=env.bool("SLIPWAY_IN_CLUSTER", False),
    )


def https_origins(environment: Environment) -> list[str]:
    """The origins of pages that were asked for by https: a request hears nothing of it, because TLS ended before it."""
    if not environment.tls:
        return []
    return [f"https://{name}" for name in dict.fromkeys((environment.address, *environment.hosts)) if name]


def _web_address(value: str) -> None:
    """Empty, or http or https with a host. Raises ValidationError."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.username is None
        _ = parts.port
    except ValueError:
        usable = False
    if value and not usable:
        raise ValidationError(
            "Must be the address of a server, such as https://models.example.com, without a user."
        )


def _names(listed: list[str]) -> tuple[str, ...]:
    """Without the spaces that people write after commas."""
    return tuple(name for name in map(str.strip, listed) if name)


def _listening_address(value: str) -> None:
    """Empty, or a host and a port. Raises ValidationError."""
    host, _, port = value.rpartition(":")
    if value and not (host and port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise ValidationError(f"Must be HOST:PORT, such as {METRICS_ADDRESS}.")


def refusal(sentence: str) -> SystemExit:
    """For what no process of the product can run with, and its reader can set right."""
    return SystemExit(f"Slipway cannot start. {sentence}")


def folder_for_uploads(home: Path) -> Path:
    """Made here, because Django refuses to start without it. Raises SystemExit with a sentence."""
    folder = home / "uploads"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refusal(
            f"SLIPWAY_HOME {home} cannot be written to ({error.strerror}): "
            "point SLIPWAY_HOME at a folder that this user owns."
        ) from error
    return folder


def database(url: str, *, lease_s: int) -> dict[str, Any]:
    """Django's settings of a Postgres URL; a socket folder may stand in `?host=`. Raises SystemExit with a sentence.

    Whoever stands still inside a transaction for a lease is taken for dead, and must not hold on to its rows.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise refusal(f"{DATABASE_FORM}, but its host or port cannot be read.") from error
    if parts.scheme not in {"postgresql", "postgres"}:
        raise refusal(f"{DATABASE_FORM}, but it starts with “{parts.scheme}”.")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return {
        "ENGINE": "controlplane.core.postgres",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.pop("host", unquote(parts.hostname or "")),
        "PORT": query.pop("port", str(port or "")),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "connect_timeout": 3,
            **SILENCE,
            "options": f"-c lock_timeout=5s -c idle_in_transaction_session_timeout={lease_s}s",
            **query,
        },
    }
