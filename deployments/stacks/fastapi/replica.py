"""One serving process: `python -m deployments.stacks.fastapi.replica CONFIG.json`.

It answers on its port at once, is ready when the model has run, and leaves in order: readiness goes first, then
it serves whoever still comes until it is quiet or `drain_s` is over, then it exits 0. It knows no database and
no control plane; everything it needs is in the file. Exit codes: 0 asked to leave, 1 cannot serve, 2 a
configuration that cannot be used.
Refused: uvicorn's own signal handling, which closes the port in the face of a proxy that has not noticed yet.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from deployments.stacks.fastapi.app import build_app
from deployments.stacks.fastapi.config import ReplicaConfig, read
from deployments.stacks.fastapi.engine import CannotServe, Engine
from deployments.stacks.fastapi.logs import set_up
from deployments.stacks.fastapi.runtimes import OPENERS
from deployments.stacks.fastapi.service import Service
from deployments.stacks.fastapi.transport import WholeAnswers

CANNOT_SERVE = 1
BAD_CONFIG = 2
_BACKLOG = 2048
_DRAIN_TICK_S = 0.02
# After the grace the port is closed; whoever came just before is still answered.
_LAST_ANSWERS_S = 1

_log = logging.getLogger("slipway.replica")


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers; `listening` is set when the port is open."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.listening.set()


class Replica:
    """The life of one process. `run` returns its exit code."""

    def __init__(self, config: ReplicaConfig, sock: socket.socket) -> None:
        self._config = config
        self._sock = sock
        self._service = Service(config)
        self._leave = asyncio.Event()
        self._opened: asyncio.Future[Engine] = asyncio.get_running_loop().create_future()
        self._server = _Server(
            uvicorn.Config(
                build_app(self._service),
                loop="none",
                http=WholeAnswers,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=config.keep_alive_s,
                timeout_graceful_shutdown=_LAST_ANSWERS_S,
            )
        )

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave.set)
        serving = asyncio.create_task(self._server.serve(sockets=[self._sock]))
        await self._server.listening.wait()
        _log.info("listening", extra={"port": self._sock.getsockname()[1], "pid": os.getpid()})
        try:
            code = await self._live()
        finally:
            self._server.should_exit = True
            await serving
        _log.info("stopped", extra={"exit_code": code})
        return code

    async def _live(self) -> int:
        threading.Thread(target=self._load, args=(asyncio.get_running_loop(),), daemon=True).start()
        leaving = asyncio.create_task(self._leave.wait())
        first: list[asyncio.Future[Any]] = [leaving, self._opened]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if self._opened.done():
            try:
                self._service.open(self._opened.result())
            except CannotServe as error:
                _log.error("cannot_serve", extra={"error": str(error)})
                leaving.cancel()
                return CANNOT_SERVE
            _log.info("ready", extra={"after_s": round(_age_s(), 3)})
            await leaving
            await self._drain()
        return 0

    def _load(self, loop: asyncio.AbstractEventLoop) -> None:
        """On its own thread: reading the runtime and the model must not keep the port silent."""
        try:
            engine = Engine(
                open_model=OPENERS[self._config.model_format],
                path=self._config.model_path,
                signature=self._config.signature,
                threads=self._config.threads,
            )
            taken = engine.warm_up(max_batch_size=self._config.batching.max_batch_size)
        except CannotServe as error:
            loop.call_soon_threadsafe(self._opened.set_exception, error)
        except Exception as error:  # noqa: BLE001 - a thread has nobody else to tell
            unforeseen = CannotServe(f"{type(error).__name__}: {error}")
            loop.call_soon_threadsafe(self._opened.set_exception, unforeseen)
        else:
            _log.info(
                "warmed_up", extra={"seconds_by_rows": {str(rows): round(s, 6) for rows, s in taken.items()}}
            )
            loop.call_soon_threadsafe(self._opened.set_result, engine)

    async def _drain(self) -> None:
        """Readiness is off; wait until nobody has come for `settle_s`, or until `drain_s` is over."""
        self._service.draining = True
        started = time.monotonic()
        _log.info("draining", extra={"serving": self._service.serving})
        while time.monotonic() - started < self._config.drain_s:
            if min(self._service.quiet_s(), time.monotonic() - started) >= self._config.settle_s:
                break
            await asyncio.sleep(_DRAIN_TICK_S)
        _log.info("drained", extra={"serving": self._service.serving})


def _age_s() -> float:
    """Seconds since the system started this process, so imports count too."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _bind(config: ReplicaConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((config.host, config.port))
    sock.listen(_BACKLOG)
    return sock


async def _serve(config: ReplicaConfig, sock: socket.socket) -> int:
    return await Replica(config, sock).run()


def main(arguments: list[str]) -> int:
    set_up(level="info", fields={})
    if len(arguments) != 1:
        _log.error("usage", extra={"error": "Give the path of one configuration file."})
        return BAD_CONFIG
    try:
        config = read(Path(arguments[0]))
    except (OSError, ValueError) as error:
        _log.error("bad_configuration", extra={"error": str(error)})
        return BAD_CONFIG
    set_up(
        level=config.log_level,
        fields={"deployment": config.deployment, "revision": config.revision, "replica": config.replica},
    )
    try:
        sock = _bind(config)
    except OSError as error:
        _log.error("cannot_listen", extra={"host": config.host, "port": config.port, "error": str(error)})
        return CANNOT_SERVE
    return asyncio.run(_serve(config, sock), loop_factory=uvloop.new_event_loop)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # Not sys.exit: a thread inside a runtime's loading must not hold up the end.
    sys.stderr.flush()
    os._exit(code)
