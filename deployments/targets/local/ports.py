"""Free ports for replicas, never one that a proxy may still send an earlier replica's requests to."""

import random
import socket
import time
from itertools import chain

# Below the range that Linux gives to outgoing connections, which would otherwise race with a starting replica.
_FIRST, _LAST = 20_000, 29_999
_REST_S = 60


class Ports:
    def __init__(self) -> None:
        self._taken: dict[int, float] = {}

    def take(self) -> int:
        """A port that nothing listens on. Another process may still be quicker; the replica then ends, and is
        started again on another one."""
        now = time.monotonic()
        self._taken = {port: until for port, until in self._taken.items() if until > now}
        start: int = random.randrange(_FIRST, _LAST)  # noqa: S311
        for port in chain(range(start, _LAST + 1), range(_FIRST, start)):
            if port not in self._taken and is_free("127.0.0.1", port):
                self.hold(port)
                return port
        raise OSError("no port is free for a replica")

    def hold(self, port: int) -> None:
        self._taken[port] = float("inf")

    def rest(self, port: int) -> None:
        """Gives the port back after a while."""
        self._taken[port] = time.monotonic() + _REST_S


def is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As a server does: connections that are only closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
