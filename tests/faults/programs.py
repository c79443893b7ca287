"""A real process of the product that a test starts, freezes, kills, and always takes away."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.embedded import procfs
from controlplane.embedded.spawn import spawn
from controlplane.settings.environment import REPOSITORY
from tests.faults.waiting import until

type Tree = dict[int, int]
"""Processes by pid, each with its start time, so that a reused pid is nobody's."""


def tree(root: int) -> Tree:
    """A process and all its descendants that live now."""
    everyone = {seen.pid: seen for seen in procfs.everyone()}
    found = {root: everyone[root].started} if root in everyone else {}
    grown = True
    while grown:
        more = {
            seen.pid: seen.started
            for seen in everyone.values()
            if seen.parent in found and seen.pid not in found
        }
        grown = bool(more)
        found |= more
    return found


def alive(those: Tree) -> list[int]:
    return [pid for pid, started in those.items() if procfs.lives(pid, started=started)]


def send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass(kw_only=True)
class Program:
    """`name` is also its log's. It leads a session of its own, as under `up`."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    _since: int = 0
    frozen: Tree = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        name: str,
        environment: Mapping[str, str],
        folder: Path,
        run_as: int | None = None,
    ) -> "Program":
        log = folder / f"{name}.log"
        since = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            popen = spawn(
                argv, environment=environment, cwd=REPOSITORY, stdout=output.fileno(), run_as=run_as
            )
        return cls(name=name, popen=popen, log=log, _since=since)

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def said(self) -> str:
        """What this life of it wrote."""
        return self.log.read_bytes()[self._since :].decode(errors="replace")

    def says(self, text: str, *, within_s: float = 30) -> None:
        """Waits until it wrote `text`."""

        def heard() -> bool:
            assert self.running, f"{self.name} ended early:\n{self.said()}"
            return text in self.said()

        until(heard, within_s=within_s, what=f"{self.name} saying “{text}”")

    def children(self) -> list[int]:
        return [seen.pid for seen in procfs.everyone() if seen.parent == self.pid]

    def kill_group(self) -> Tree:
        """SIGKILL to its process group. Returns what was alive below it a moment before."""
        before = tree(self.pid)
        os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(10)
        return before

    def kill(self) -> Tree:
        """SIGKILL to the process alone."""
        before = tree(self.pid)
        self.popen.kill()
        self.popen.wait(10)
        return before

    def freeze(self) -> None:
        """Stops it and all it started, children last so that none is missed."""
        self.frozen = tree(self.pid)
        send(self.frozen, signal.SIGSTOP)

    def thaw(self) -> None:
        send(self.frozen, signal.SIGCONT)
        self.frozen = {}

    def terminate(self, *, within_s: float) -> float:
        """SIGTERM, and how many seconds it took to leave. AssertionError if longer than `within_s`."""
        began = time.monotonic()
        self.popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(within_s)
        assert not self.running, (
            f"{self.name} still runs {within_s:g} s after SIGTERM:\n{self.said()[-3000:]}"
        )
        return time.monotonic() - began

    def clean_up(self) -> None:
        """Nothing of it is left when this returns."""
        below = tree(self.pid) if self.running else {}
        send([*below, *self.frozen], signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(10)
        until(lambda: not alive(below), within_s=10, what=f"the end of what {self.name} started")
