"""One replica: a name that keeps a serving process, replaced whenever it dies, until it is retired.

    starting -> ready <-> not_ready        starting, ready, not_ready -> failed -> starting
    any -> draining -> gone

`failed` is the time between two processes. Refused: giving the replaced process a new name; a reader could not
tell a crash loop from healthy scaling.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from deployments.domain.workload import ReplicaState, ReplicaStatus, Workload
from deployments.targets.local.artifacts import Artifacts
from deployments.targets.local.layout import REPOSITORY
from deployments.targets.local.ports import Ports
from deployments.targets.local.probes import LIVE, READY, Answer, ask
from deployments.targets.local.processes import LogFile, Process
from deployments.targets.local.state import Record, StateFiles, write

_log = logging.getLogger(__name__)

TAIL_LINES = 50
_NOT_READY_POLL_S, _POLL_S, _ANSWER_S = 0.2, 1.0, 2.0
_MISSES = 3
_STEADY_S = 30
_LONGEST_PAUSE_S = 30.0
# What a replica may see of our environment: no address, no token, no key.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")

type StartCommand = Callable[[Workload, Path], Sequence[str]]
"""Takes what shall run and the path of its configuration; raises LookupError with a sentence where it cannot."""


def pause_s(crashes: int) -> float:
    """How long to wait before the next process, after so many in a row that did not hold: 0, 0.5, 1, 2 ... 30."""
    return 0 if crashes <= 1 else min(_LONGEST_PAUSE_S, 0.5 * 2.0 ** min(crashes - 2, 10))


def look_again_s(started_s: float) -> float:
    """How long to wait before a starting process is asked again: a start is noticed within a tenth of its time."""
    return min(_POLL_S, max(0.03, started_s / 10))


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a replica needs of the node. `changed` is called after every change, `routed` returns when requests
    reach the port, `unrouted` when no new one does, `served_without` says whether other revisions than this one
    serve the deployment, `report` takes the kind and message of an event and the replica's name."""

    files: StateFiles
    artifacts: Artifacts
    ports: Ports
    session: aiohttp.ClientSession
    start_command: StartCommand
    changed: Callable[[str], None]
    routed: Callable[[str, int], Awaitable[None]]
    unrouted: Callable[[str, int], Awaitable[None]]
    served_without: Callable[[str, int], bool]
    report: Callable[[str, str, str, str], None]


class Replica:
    """Runs as one task from `begin` until it is gone."""

    def __init__(self, record: Record, *, around: Surroundings) -> None:
        self.record = record
        self._around = around
        self._folder = around.files.folder(record.key, record.name)
        self._log = LogFile(self._folder / "log")
        self._retired = asyncio.Event()
        self._hurried = asyncio.Event()
        self._drain_s = 0.0
        self._answers = record.state is ReplicaState.READY

    def begin(self, process: Process | None) -> asyncio.Task[None]:
        """Starts its life, with a process that was adopted or without one."""
        return asyncio.create_task(self._live(process), name=f"{self.record.key}/{self.record.name}")

    def retire(self, *, drain_s: float) -> None:
        """Takes it out of the endpoint at once, lets its requests finish, and ends it."""
        if not self.retired:
            self._drain_s = drain_s
            self._retired.set()
            self._become(ReplicaState.DRAINING)

    def hurry(self) -> None:
        """Ends a drain that is still going on."""
        self._hurried.set()

    @property
    def retired(self) -> bool:
        return self._retired.is_set()

    @property
    def ready(self) -> bool:
        return self.record.state is ReplicaState.READY

    @property
    def takes_requests(self) -> bool:
        """Belongs into the endpoint. It is said to be ready only once it is in there."""
        return self._answers

    def status(self) -> ReplicaStatus:
        record = self.record
        return ReplicaStatus(
            name=record.name,
            revision=record.workload.revision,
            state=record.state,
            url=f"http://127.0.0.1:{record.port}",
            pid=record.pid,
            restarts=record.restarts,
            started_at=record.started_at,
            ready_at=record.ready_at,
            reason=record.reason or record.ended,
            log_tail=record.log_tail,
        )

    def tail(self, lines: int) -> tuple[str, ...]:
        return self._log.tail(lines)

    def trim_log(self) -> None:
        self._log.trim()

    async def _live(self, process: Process | None) -> None:
        try:
            if process is None and self.record.pid is not None:
                self._died("ended while the node was away")
            while not self.retired:
                if process is None and (process := await self._start()) is None:
                    continue
                if reason := await self._watch(process):
                    self._died(reason)
                    process = None
            if process is not None:
                await self._drain(process)
                process = None
        except asyncio.CancelledError:
            # The node itself leaves without having stopped: what serves goes on serving.
            process = None
            raise
        finally:
            if process is not None:
                await process.stop(grace_s=0)
            self._around.ports.rest(self.record.port)

    async def _start(self) -> Process | None:
        """The next process, or None when it was retired meanwhile or could not be started."""
        if pause := pause_s(self.record.crashes):
            await asyncio.wait({waiting := asyncio.ensure_future(self._retired.wait())}, timeout=pause)
            waiting.cancel()
            if self.retired:
                return None
        workload = self.record.workload
        fault = await self._around.artifacts.fault(
            Path(workload.artifact_path), sha256=workload.artifact_sha256
        )
        if self.retired:
            return None
        if fault is None:
            try:
                return self._spawn()
            except (OSError, LookupError) as error:
                fault = f"cannot be started: {error.args[-1] if error.args else error}"
        self._fail(fault)
        return None

    def _spawn(self) -> Process:
        record, workload = self.record, self.record.workload
        self._around.ports.rest(record.port)
        port = self._around.ports.take()
        self._log.begin()
        config = self._folder / "config.json"
        write(config, self._config(port))
        process = Process.spawn(
            self._around.start_command(workload, config),
            folder=REPOSITORY,
            environment=self._environment(),
            log=self._log.path,
        )
        if workload.memory_bytes is not None:
            process.limit_memory(workload.memory_bytes)
        if self._around.served_without(record.key, workload.revision):
            # Nobody waits for it: its start must not cost the requests that the others serve.
            process.step_back()
        now = datetime.now(UTC)
        self.record = replace(
            record, port=port, pid=process.pid, ticks=process.ticks, started_at=now, ready_at=None
        )
        self._become(ReplicaState.STARTING)
        self._report("started", f"started as process {process.pid} on port {port}")
        return process

    def _config(self, port: int) -> dict[str, Any]:
        workload = self.record.workload
        return {
            "deployment": self.record.key,
            "revision": workload.revision,
            "replica": self.record.name,
            "model_name": workload.model_name,
            "model_version": workload.model_version,
            "model_path": workload.artifact_path,
            "model_format": workload.artifact_format,
            "signature": workload.signature,
            "host": "127.0.0.1",
            "port": port,
            "batching": workload.batching.to_json(),
            "threads": workload.threads,
            "api_key_sha256": workload.api_key_sha256,
            "log_level": "info",
        }

    def _environment(self) -> dict[str, str]:
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        own = {"HOME": str(self._folder), "TMPDIR": str(self._folder), "PYTHONUNBUFFERED": "1"}
        return (
            passed_on
            | {"OMP_NUM_THREADS": str(self.record.workload.threads)}
            | self.record.workload.environment
            | own
        )

    async def _watch(self, process: Process) -> str:
        """Why the process is gone, in words; empty when the replica is retired and the process still runs."""
        probing = asyncio.create_task(self._probe(process))
        retiring = asyncio.create_task(self._retired.wait())
        try:
            news: set[asyncio.Future[Any]] = {process.exited, probing, retiring}
            await asyncio.wait(news, return_when=asyncio.FIRST_COMPLETED)
            if process.exited.done():
                return process.exited.result()
            if retiring.done():
                return ""
            reason = probing.result()
        finally:
            probing.cancel()
            retiring.cancel()
        # Out of the endpoint first: it may still take requests that it would never answer.
        self._become(ReplicaState.NOT_READY, reason=reason)
        await process.stop(grace_s=1)
        return reason

    async def _probe(self, process: Process) -> str:
        """Keeps the state up to date; returns why the process must be replaced."""
        loop = asyncio.get_running_loop()
        began, misses, silences = loop.time(), 0, 0
        start_s = self.record.workload.start_deadline_s
        while True:
            answer, live = await asyncio.gather(self._ask(READY), self._ask(LIVE))
            silences = 0 if answer.status is not None else silences + 1
            if answer.ok:
                misses = 0
                process.step_forward()
                await self._become_ready()
            elif self.record.ready_at is None:
                if loop.time() >= began + start_s:
                    return f"not ready after {start_s} s"
            else:
                # One late answer is a busy machine; an answer that says no is believed at once.
                if answer.status is not None or silences > 1:
                    self._become(ReplicaState.NOT_READY, reason=answer.words("its readiness check"))
                misses = 0 if live.ok else misses + 1
                if misses >= _MISSES:
                    return f"{live.words('its liveness check')}, {_MISSES} times in a row"
            if self.record.ready_at is None:
                await asyncio.sleep(look_again_s(loop.time() - began))
            else:
                await asyncio.sleep(_POLL_S if answer.ok else _NOT_READY_POLL_S)

    async def _ask(self, path: str) -> Answer:
        return await ask(self._around.session, self.record.port, path, timeout_s=_ANSWER_S)

    async def _become_ready(self) -> None:
        if self.ready or self.retired:
            return
        self._answers = True
        await self._around.routed(self.record.key, self.record.port)
        if not self.retired:
            first = self.record.ready_at is None
            now = datetime.now(UTC)
            self.record = replace(self.record, ready_at=now if first else self.record.ready_at)
            self._become(ReplicaState.READY)
            took_s = (now - self.record.started_at).total_seconds()
            self._report("ready", f"ready after {took_s:.1f} s" if first else "ready again")

    def _died(self, reason: str) -> None:
        ready_at = self.record.ready_at
        held = ready_at is not None and (datetime.now(UTC) - ready_at).total_seconds() >= _STEADY_S
        self.record = replace(
            self.record,
            restarts=self.record.restarts + 1,
            crashes=1 if held else self.record.crashes + 1,
            ended=reason,
            log_tail=self._log.tail_of_this_process(TAIL_LINES),
        )
        self._report("died", reason)
        self._gone(reason)

    def _fail(self, reason: str) -> None:
        """No process could be started. The pause grows from the first time on: nothing changed by itself."""
        if self.record.reason != reason:
            self._report("failed", reason)
        self.record = replace(self.record, crashes=max(2, self.record.crashes + 1))
        self._gone(reason)

    def _gone(self, reason: str) -> None:
        self.record = replace(self.record, pid=None, ticks=0, ready_at=None)
        self._become(ReplicaState.FAILED, reason=reason)

    async def _drain(self, process: Process) -> None:
        self._report("draining", f"finishing its requests, for {self._drain_s:g} s at most")
        await self._around.unrouted(self.record.key, self.record.port)
        process.send(signal.SIGTERM)
        hurrying = asyncio.create_task(self._hurried.wait())
        ends: set[asyncio.Future[Any]] = {process.exited, hurrying}
        await asyncio.wait(ends, timeout=self._drain_s, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        await process.stop(grace_s=0)
        self._report("removed", process.exited.result())

    def _become(self, state: ReplicaState, *, reason: str = "") -> None:
        """The one place where the state changes. A retired replica drains, whatever its checks say."""
        if self.retired:
            state = ReplicaState.DRAINING
        self._answers = state is ReplicaState.READY
        before = self.record
        self.record = replace(before, state=state, reason=reason)
        if self.record.state is not before.state or self.record.pid != before.pid:
            if state is ReplicaState.NOT_READY:
                self._report("not_ready", self.record.reason)
            self._around.files.save_record(self.record)
            self._around.changed(self.record.key)

    def _report(self, kind: str, message: str) -> None:
        self._around.report(kind, message, self.record.key, self.record.name)
