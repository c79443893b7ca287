"""The node: keeps the replicas of this machine and the proxy in front of them.

    python -m deployments.targets.local.node

SIGTERM and SIGINT drain and end everything. SIGKILL ends the node alone: replicas and proxy go on serving, and
the next node adopts them. One node per SLIPWAY_HOME, held by a lock that the kernel gives back when it dies.
"""

import asyncio
import fcntl
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from controlplane.core.errors import SlipwayError
from deployments.targets.local.api import NodeApi
from deployments.targets.local.events import EventLog
from deployments.targets.local.layout import NodeSettings
from deployments.targets.local.preflight import stack_command
from deployments.targets.local.proxy import open_proxy
from deployments.targets.local.replicas import StartCommand
from deployments.targets.local.supervisor import Supervisor

_log = logging.getLogger(__name__)


def main(settings: NodeSettings | None = None, *, start_command: StartCommand | None = None) -> None:
    """Runs until a signal ends it. What stands in the way is raised as SystemExit with one sentence."""
    settings = settings or NodeSettings.from_environment()
    start_command = start_command or partial(stack_command, toolchains=settings.toolchains)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    _raise_file_limit()
    for folder in (settings.run, settings.state):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with only_node(settings.run / "node.lock"):
        try:
            asyncio.run(_run(settings, start_command))
        except SlipwayError as error:
            raise SystemExit(str(error)) from error


@contextmanager
def only_node(lock: Path) -> Iterator[None]:
    """Raises SystemExit with a sentence while another node holds the lock."""
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            home = lock.parent.parent
            holder = file.read().strip() or "unknown"
            raise SystemExit(
                f"Another node (process {holder}) already runs for {home}. Stop it first."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


async def _run(settings: NodeSettings, start_command: StartCommand) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    events = EventLog(settings.state / "events.jsonl")
    proxy = open_proxy(settings, report=events.add)
    # Probes are small and many; the connections to a replica that went away are not worth keeping.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=5)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        supervisor = Supervisor(
            settings, proxy=proxy, events=events, session=session, start_command=start_command
        )
        await supervisor.start()
        api = NodeApi(supervisor, proxy=proxy, events=events, address=settings.address(""))
        runner = web.AppRunner(api.application(token=_token(settings)), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await _site(runner, settings).start()
        _log.info("the node listens on %s", settings.url or settings.socket)
        looking = asyncio.create_task(supervisor.run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({looking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if looking.done():
            # A fault of ours: leave as a kill would, so that what serves goes on serving.
            looking.result()
        looking.cancel()
        _log.info("the node drains and stops everything")
        await supervisor.stop()
        await runner.cleanup()


def _token(settings: NodeSettings) -> str:
    return settings.token if settings.url.startswith("http") else ""


def _site(runner: web.AppRunner, settings: NodeSettings) -> web.BaseSite:
    if settings.url.startswith("http"):
        parts = urlsplit(settings.url)
        return web.TCPSite(runner, parts.hostname, parts.port or 80)
    settings.socket.unlink(missing_ok=True)
    os.umask(0o077)
    return web.UnixSite(runner, str(settings.socket))


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
