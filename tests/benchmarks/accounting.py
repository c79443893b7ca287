"""CPU and memory of processes, as the kernel accounts for them.

The clock of another process counts nanoseconds and threads that are gone; /proc's own figures count hundredths
of a second.
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


def _with_ended_children_s(pid: int) -> float:
    """What the process used, and its children that have ended and been waited for (in hundredths)."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return process_cpu_s(pid) + times.children_user + times.children_system


@dataclass(frozen=True, kw_only=True)
class CpuOf:
    """What trees of processes use from now on, those that start and end meanwhile included."""

    roots: tuple[int, ...]
    before_s: float

    @classmethod
    def trees(cls, roots: Iterable[int]) -> Self:
        kept = tuple(roots)
        return cls(roots=kept, before_s=_total_s(kept))

    def since(self) -> float:
        """Seconds of CPU."""
        return _total_s(self.roots) - self.before_s


def _total_s(roots: Iterable[int]) -> float:
    return sum(_with_ended_children_s(pid) for root in roots for pid in tree(root))
