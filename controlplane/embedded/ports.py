"""Loopback ports: remembered, so that an open page and a copied address survive a restart; and free.

They are taken below the range from which the kernel gives ports to outgoing connections: a port from
that range may belong to somebody's connection at the moment its server is restarted.
"""

import errno
import json
import os
import socket
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from controlplane.embedded import procfs
from controlplane.embedded.errors import SetupError
from controlplane.embedded.home import Home, write_private

FIRST, COUNT = 20000, 10000
LISTENING = "0A"


def bind_error(host: str, port: int) -> int | None:
    """The errno with which the kernel refuses the port now, or None where it is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno or errno.EINVAL
    return None


def choose(home: Home, names: Sequence[str]) -> dict[str, int]:
    """A free loopback port for each name, the one it had before where that is possible."""
    kept = home.run / "ports.json"
    try:
        before = {str(name): int(port) for name, port in json.loads(kept.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        before = {}
    chosen: dict[str, int] = {}
    for name in names:
        candidates = (port for port in _candidates(home, before.get(name)) if port not in chosen.values())
        port = next((port for port in candidates if bind_error("127.0.0.1", port) is None), None)
        if port is None:
            raise SetupError(
                "no_free_port", f"No port from {FIRST} to {FIRST + COUNT - 1} is free on 127.0.0.1."
            )
        chosen[name] = port
    write_private(kept, json.dumps(before | chosen, indent=1))
    return chosen


def _candidates(home: Home, before: int | None) -> Iterator[int]:
    if before is not None:
        yield before
    start = zlib.crc32(os.fsencode(home.root)) % COUNT
    yield from (FIRST + (start + step) % COUNT for step in range(COUNT))


def holder(port: int) -> int | None:
    """The pid that listens on the port, as far as this user may see it."""
    inodes = {f"socket:[{inode}]" for name in ("tcp", "tcp6") for inode in _listeners(name, port)}
    return (
        next((seen.pid for seen in procfs.everyone() if inodes & _open_files(seen.pid)), None)
        if inodes
        else None
    )


def _listeners(table: str, port: int) -> Iterator[str]:
    try:
        rows = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    except OSError:
        return
    for row in rows:
        fields = row.split()
        if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]


def _open_files(pid: int) -> set[str]:
    try:
        return {os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")}  # noqa: PTH115  one call each
    except OSError:
        return set()
