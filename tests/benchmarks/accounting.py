"""CPU and memory of processes, as the kernel accounts for them.

The clock of another process counts nanoseconds and threads that are gone; /proc's own figures count hundredths
of a second. A process that ended between two looks takes its time with it, so count around work, not around
starts and stops.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil


def process_cpu_s(pid: int) -> float:
    """Seconds of CPU that the process has used; 0 for one that is gone."""
    try:
        return time.clock_gettime(~pid << 3 | 2)  # CPUCLOCK_SCHED of that process: linux/posix-timers.h
    except OSError:
        return 0.0


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def unique_mib(pid: int) -> float:
    """Memory that would be given back if the process ended."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    private = [line.split() for line in lines if line.startswith("Private_")]
    return sum(int(words[1]) for words in private) / 1024


@dataclass(kw_only=True)
class CpuOf:
    """What trees of processes have used since a look before, counting those that were there at either look."""

    roots: tuple[int, ...]
    before: dict[int, float]

    @classmethod
    def trees(cls, roots: Iterable[int]) -> Self:
        found = cls(roots=tuple(roots), before={})
        found.before = found._now()
        return found

    def _now(self) -> dict[int, float]:
        return {pid: process_cpu_s(pid) for root in self.roots for pid in tree(root)}

    def since(self) -> float:
        """Seconds of CPU."""
        return sum(used - self.before.get(pid, 0.0) for pid, used in self._now().items())
