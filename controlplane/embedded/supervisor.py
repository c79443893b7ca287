"""Keeps the rows of the process table running, and stops them in order within a bound.

One task per row: prepare, start, read its output, wait for its end, start again with back-off. The end of
a child is the kernel's word (a pidfd), never a guess from a closed pipe, which grandchildren may hold open.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from controlplane.embedded import leftovers
from controlplane.embedded.errors import SetupError
from controlplane.embedded.home import Home
from controlplane.embedded.journal import LINE_LIMIT_BYTES, Journal
from controlplane.embedded.processes import Kind, Process, Tier
from controlplane.embedded.spawn import child_environment, spawn
from controlplane.settings.environment import REPOSITORY

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
STEADY_S = 30.0
STOP_WITHIN_S = 9.0
SERVERS_KEEP_S = 1.5
"""However long the others take, Postgres and Valkey get this much of it."""
PROBE_EVERY_S = 0.03


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a row needs done on this machine. Each runs in a thread and may block for a moment.

    `prepare` comes before every start and raises SetupError; `answers` says whether it serves.
    """

    prepare: Callable[[], None] | None = None
    answers: Callable[[], bool] | None = None


NO_HOOKS = Hooks()


class Output:
    """Splits what a child writes into lines and hands them to the journal."""

    def __init__(self, descriptor: int, *, name: str, journal: Journal) -> None:
        self._descriptor = descriptor
        self._name = name
        self._journal = journal
        self._rest = b""
        self.last = ""
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self.read)

    def read(self) -> None:
        try:
            chunk = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LINE_LIMIT_BYTES:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._line(line)

    def _line(self, line: bytes) -> None:
        text = line.rstrip(b"\r")[:LINE_LIMIT_BYTES]
        self.last = text.decode(errors="replace").strip() or self.last
        self._journal.line(self._name, text)

    def close(self) -> None:
        """Reads what is there already, and waits for nothing."""
        self.read()
        if self._rest:
            self._line(self._rest)
        asyncio.get_running_loop().remove_reader(self._descriptor)


@dataclass(kw_only=True)
class Child:
    """One running process and its output."""

    popen: subprocess.Popen[bytes]
    output: Output
    ended: asyncio.Future[None]

    @classmethod
    def start(cls, process: Process, *, home: Home, values: Mapping[str, str], journal: Journal) -> "Child":
        own = {"PYTHONUNBUFFERED": "1"} if process.kind is Kind.PYTHON else {}
        popen = spawn(
            process.argv,
            environment=child_environment(home=home.root, values=values, reads=process.reads)
            | own
            | dict(process.environment),
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            death_signal=process.death_signal,
            run_as=process.run_as,
        )
        assert popen.stdout is not None
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        pidfd = os.pidfd_open(popen.pid)

        def on_end() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            if not ended.done():
                ended.set_result(None)

        loop.add_reader(pidfd, on_end)
        return cls(
            popen=popen, output=Output(popen.stdout.fileno(), name=process.name, journal=journal), ended=ended
        )

    def finish(self, *, home: Home) -> int:
        """Collects the exit code of an ended child, its last lines, and what is left of its group."""
        code = self.popen.wait()
        leftovers.kill_group(self.popen.pid, home=home)
        self.output.close()
        if self.popen.stdout is not None:
            self.popen.stdout.close()
        return code

    def signal(self, number: signal.Signals) -> None:
        if not self.ended.done():
            self.popen.send_signal(number)


def describe(code: int) -> str:
    """An exit code in words."""
    return f"exit {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


@dataclass(kw_only=True)
class Keeper:
    """Keeps one row running until it is told to stop."""

    process: Process
    hooks: Hooks
    supervisor: "Supervisor"
    child: Child | None = None
    restarts: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    async def keep(self) -> None:
        """Raises SetupError where the first start does; a later one is tried again."""
        delay_s = FIRST_DELAY_S
        while not self.stopping.is_set():
            began = time.monotonic()
            reason = await self._once()
            if self.stopping.is_set():
                return
            if time.monotonic() - began > STEADY_S:
                delay_s = FIRST_DELAY_S
            self.restarts += 1
            self.supervisor.journal.say(
                f"{self.process.name} died ({reason}), starting again in {delay_s:g} s"
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def _once(self) -> str:
        """One life of the process; returns how it ended."""
        owner = self.supervisor
        try:
            if self.hooks.prepare is not None:
                await asyncio.to_thread(self.hooks.prepare)
            if self.stopping.is_set():
                return "stopped"
            child = Child.start(self.process, home=owner.home, values=owner.values, journal=owner.journal)
        except Exception as error:  # whatever it is, the next try may succeed
            if isinstance(error, SetupError) and not self.restarts:
                raise
            return str(error)
        self.child = child
        leftovers.remember(
            owner.home, name=self.process.name, pid=child.popen.pid, stop_signal=self.process.stop_signal
        )
        owner.changed()
        await child.ended
        self.child = None
        reason = describe(child.finish(home=owner.home))
        leftovers.forget(owner.home, name=self.process.name)
        return reason

    async def ready(self) -> None:
        """Returns when the process answers. Raises what the first start did. Loops for ever: bound it outside."""
        while self.hooks.answers is not None and not (
            self.child is not None and await asyncio.to_thread(self.hooks.answers)
        ):
            if self.task is not None and self.task.done():
                self.task.result()
            await asyncio.sleep(PROBE_EVERY_S)

    async def stop(self, *, by: float) -> None:
        """Asks, waits for the row's grace but not beyond `by` (monotonic), then kills."""
        self.stopping.set()
        until = min(by, time.monotonic() + self.process.grace_s)
        if self.child is not None:
            self.child.signal(self.process.stop_signal)
        await self._wait(until)
        if self.child is not None:
            self.supervisor.journal.say(f"{self.process.name} did not stop in time and is killed")
            self.child.signal(signal.SIGKILL)
        await self._wait(time.monotonic() + 1)

    async def _wait(self, until: float) -> None:
        if self.task is not None:
            await asyncio.wait([self.task], timeout=max(0.0, until - time.monotonic()))


@dataclass(kw_only=True)
class Supervisor:
    """All keepers of one `up`. `changed` is called whenever a process got a new pid."""

    home: Home
    values: Mapping[str, str]
    journal: Journal
    changed: Callable[[], None] = lambda: None
    keepers: list[Keeper] = field(default_factory=list)

    def start(self, process: Process, hooks: Hooks = NO_HOOKS) -> Keeper:
        keeper = Keeper(process=process, hooks=hooks, supervisor=self)
        keeper.task = asyncio.get_running_loop().create_task(keeper.keep(), name=process.name)
        self.keepers.append(keeper)
        return keeper

    async def run_once(self, process: Process) -> tuple[int, str]:
        """Runs a command to its end; returns its exit code and last line. Cancelling it kills it."""
        child = Child.start(process, home=self.home, values=self.values, journal=self.journal)
        try:
            await asyncio.shield(child.ended)
        finally:
            child.signal(signal.SIGKILL)
            code = child.finish(home=self.home)
        return code, child.output.last

    def pids(self) -> dict[str, int]:
        return {
            keeper.process.name: keeper.child.popen.pid for keeper in self.keepers if keeper.child is not None
        }

    async def stop(self) -> None:
        """Stops the tiers in reverse order, each together, all within STOP_WITHIN_S and a second for the rest."""
        by = time.monotonic() + STOP_WITHIN_S
        for tier in sorted(Tier, reverse=True):
            until = by - (SERVERS_KEEP_S if tier > Tier.SERVERS else 0)
            await asyncio.gather(*(keeper.stop(by=until) for keeper in self._of(tier)))

    def _of(self, tier: Tier) -> Iterable[Keeper]:
        return [keeper for keeper in self.keepers if keeper.process.tier is tier]

    def kill(self) -> None:
        """No grace: for the second Ctrl-C."""
        for keeper in self.keepers:
            keeper.stopping.set()
            if keeper.child is not None:
                keeper.child.signal(signal.SIGKILL)
