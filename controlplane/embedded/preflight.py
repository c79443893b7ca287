"""What must be true of the machine before anything is started; each refusal is one sentence."""

import errno
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import psycopg

from controlplane.embedded import ports, postgres, procfs
from controlplane.embedded.edge import split
from controlplane.embedded.errors import SetupError
from controlplane.embedded.home import Home
from controlplane.settings.environment import METRICS_ADDRESS, REPOSITORY

NEEDED_BYTES = 500 * 1000**2


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the operator asked `up` for: `host` is where it is asked, `bind` the number it listens on, `hosts` are
    further names under which it answers. A port of 0 means any free one. `metrics` is where autoscalers of clusters are
    answered, if they are."""

    home: Home
    host: str
    bind: str
    port: int
    data_port: int
    database_url: str | None = None
    redis_url: str | None = None
    secret_key: str | None = None
    node_url: str | None = None
    node_token: str | None = None
    hosts: str = ""
    metrics: str = ""

    @property
    def is_everywhere(self) -> bool:
        """Whether it listens on every network of the machine."""
        return ip_address(self.bind).is_unspecified


def wanted(environment: Mapping[str, str]) -> Wanted:
    """Reads the variables of one installation. `up` makes the environment that settings read, so it reads
    its own, and a stale up.json cannot speak for the operator. Raises SetupError."""
    address = environment.get("SLIPWAY_ADDRESS") or "127.0.0.1:8400"
    host, bind, port = _address(address)
    data_port = environment.get("SLIPWAY_DATA_PORT") or "8410"
    if not data_port.isdigit() or int(data_port) > 65535:
        raise SetupError(
            "bad_data_port", f"SLIPWAY_DATA_PORT is {data_port!r}, but must be a port such as 8410."
        )
    root = Path(environment.get("SLIPWAY_HOME") or REPOSITORY / ".slipway").resolve()
    return Wanted(
        home=Home(root=root),
        host=host,
        bind=bind,
        port=port,
        data_port=int(data_port),
        database_url=environment.get("DATABASE_URL") or None,
        redis_url=environment.get("REDIS_URL") or None,
        secret_key=environment.get("SLIPWAY_SECRET_KEY") or None,
        node_url=environment.get("SLIPWAY_NODE_URL") or None,
        node_token=environment.get("SLIPWAY_NODE_TOKEN") or None,
        hosts=environment.get("SLIPWAY_HOSTS") or "",
        metrics=_metrics(environment),
    )


def _metrics(environment: Mapping[str, str]) -> str:
    """Empty where it is switched off, as it is without a certificate. Raises SetupError."""
    address = environment.get("SLIPWAY_METRICS_ADDRESS", METRICS_ADDRESS)
    have = [bool(environment.get(f"SLIPWAY_METRICS_{one}")) for one in ("CERT", "KEY")]
    if not address or not any(have):
        return ""
    if not all(have):
        raise SetupError(
            "half_a_certificate",
            "Only one of SLIPWAY_METRICS_CERT and SLIPWAY_METRICS_KEY is set: name both files, or none.",
        )
    try:
        split(address)
    except ValueError as error:
        raise SetupError(
            "bad_metrics_address",
            f"SLIPWAY_METRICS_ADDRESS is {address!r}, but must be HOST:PORT such as {METRICS_ADDRESS}.",
        ) from error
    return address


def _address(address: str) -> tuple[str, str, int]:
    """Where it is asked, where it listens, and the port. Envoy binds to numbers only, so a name is looked up here;
    all networks together are no address to ask, and this machine's own is one of them."""
    try:
        host, port = split(address)
        bind = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
        if ip_address(bind).is_unspecified:
            host = "::1" if ":" in bind else "127.0.0.1"
        return host, bind, port
    except (ValueError, OSError) as error:
        raise SetupError(
            "bad_address", f"SLIPWAY_ADDRESS is {address!r}, but must be HOST:PORT such as 127.0.0.1:8400."
        ) from error


def check_system() -> None:
    if sys.platform != "linux":
        raise SetupError("not_linux", f"`up` runs on Linux, and this is {sys.platform}.")


def check_disk(home: Home) -> None:
    free = shutil.disk_usage(home.root).free
    if free < NEEDED_BYTES:
        raise SetupError(
            "no_disk_space",
            f"No disk space: {home.root} has {free / 1e6:.0f} MB free and needs {NEEDED_BYTES / 1e6:.0f} MB. "
            "Free some, or point SLIPWAY_HOME at a larger disk.",
        )


def check_database(url: str) -> None:
    """Of the operator's own."""
    try:
        postgres.connect(url)
    except psycopg.Error as error:
        raise SetupError(
            "database_unreachable",
            f"DATABASE_URL leads to no Postgres that lets Slipway in: {' '.join(str(error).split())}",
        ) from error


def check_port(host: str, port: int, *, variable: str, example: str, home: Home) -> None:
    """Raises SetupError unless the port is free, or held by what this home's node left serving."""
    code = ports.bind_error(host, port)
    if code is None:
        return
    if code != errno.EADDRINUSE:
        raise SetupError(
            "port_refused",
            f"{variable} asks for {host} port {port}, which cannot be used here ({os.strerror(code)}): choose another, "
            f"for example {variable}={example}.",
        )
    pid = ports.holder(port)
    if pid is not None and procfs.serves(pid, home=home.root):
        return
    by = "another program" if pid is None else f"{procfs.command(pid)} (process {pid})"
    raise SetupError(
        "port_taken",
        f"Port {port} on {host} is taken by {by}: choose another, for example {variable}={example}.",
    )
