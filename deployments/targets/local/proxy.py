"""The port of the data proxy: what the node asks of whatever stands in front of the replicas."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from deployments.targets.local.layout import NodeSettings


@dataclass(frozen=True, kw_only=True)
class Route:
    """Requests below `path` go to one of `ports` of this machine, with the path taken away.

    Without a path there are no new requests, but those that still run are let finish.
    """

    key: str
    path: str | None
    ports: tuple[int, ...]


class DataProxy(Protocol):
    """One proxy process that outlives the node, and is adopted by the next one."""

    async def start(self, routes: Sequence[Route]) -> None:
        """Adopts the running process or starts one, and keeps one running until `stop`.

        Raises Unavailable in a sentence when the data port is taken or the proxy is not installed.
        """
        ...

    def apply(self, routes: Sequence[Route]) -> None:
        """Writes what shall be so. Quick, repeatable, and harmless while the process is away."""
        ...

    async def settled(self, key: str, port: int, *, listed: bool, timeout_s: float) -> None:
        """Returns when new requests of `key` may go to the port, or no longer do (`listed`), or after the time,
        or with no process."""
        ...

    def trim_log(self) -> None:
        """Keeps the process's log below its cap."""
        ...

    async def stats(self) -> str:
        """The proxy's own Prometheus page. Raises Unavailable while the process is away."""
        ...

    @property
    def pid(self) -> int | None: ...

    async def stop(self) -> None:
        """Ends the process, and returns when it is gone."""
        ...


type Report = Callable[[str, str], None]
"""Takes the kind of an event and its message."""


def open_proxy(settings: NodeSettings, *, report: Report) -> DataProxy:
    """The proxy that the settings name. Refuses an unknown one in a sentence."""
    if settings.proxy != "envoy":
        raise SystemExit(f"SLIPWAY_PROXY is “{settings.proxy}”, but the only data proxy here is “envoy”.")
    from deployments.targets.local.proxy_envoy import EnvoyProxy

    return EnvoyProxy(settings, report=report)
