"""What TensorRT says while it builds: its log lines and its progress; and how it is told to stop.

It may speak from any of its threads. Its error recorder is never set: one that is written in Python ends the
process with a segmentation fault when the network is destroyed.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from controlplane.core.sandbox.asking import asked_to_stop
from controlplane.core.sandbox.hearing import printable
from optimizer.workbench.journal import Journal

TAIL_LINES = 30
_NOISE = ("cudaError 35", "--- Begin node ---", "--- End node ---", "----------")
"""No driver, which is how it is meant to be here; and lines that only frame others."""


@dataclass(kw_only=True)
class Heard:
    """The lines worth keeping: `tail` the last of all, `errors` those that say why something failed."""

    journal: Journal
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    errors: list[str] = field(default_factory=list)

    def take(self, severity: str, message: str) -> None:
        if severity == "VERBOSE" or any(text in message for text in _NOISE):
            return
        level = {"INFO": "info", "WARNING": "warning"}.get(severity, "error")
        for line in filter(None, map(str.strip, message.splitlines())):
            self.tail.append(printable(line))
            self.journal.emit({"kind": "log", "level": level, "message": f"TensorRT: {line}"})
        if level == "error":
            self.errors.append(message)


def logger(trt: Any, heard: Heard) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            heard.take(severity.name, message)

    return Log()


@dataclass(kw_only=True)
class _Phase:
    parent: "_Phase | None"
    begin: float
    end: float
    steps: int
    at: float
    done: int = 0

    def step_end(self) -> float:
        return self.begin + (self.end - self.begin) * min(1.0, (self.done + 1) / self.steps)


@dataclass(kw_only=True)
class Nesting:
    """Phases within phases as one share between 0 and 1 that never falls.

    A phase is a part of its parent's current step. A parent may have more children in a step than it says steps, so
    each takes half of what the step has left.
    """

    share: float = 0.0
    _phases: dict[str, _Phase] = field(default_factory=dict)

    def start(self, name: str, parent: str | None, steps: int) -> None:
        above = self._phases.get(parent or "")
        begin, end = (above.at, (above.at + above.step_end()) / 2) if above else (0.0, 1.0)
        self._phases[name] = _Phase(parent=above, begin=begin, end=end, steps=max(1, steps), at=begin)

    def step(self, name: str, index: int) -> None:
        if phase := self._phases.get(name):
            phase.done = index
            self._reach(phase, phase.step_end())
            phase.done = index + 1

    def finish(self, name: str) -> None:
        if phase := self._phases.pop(name, None):
            self._reach(phase, phase.end)
            if phase.parent is not None:
                self._reach(phase.parent, phase.end)

    def _reach(self, phase: _Phase, moment: float) -> None:
        phase.at = max(phase.at, moment)
        self.share = max(self.share, phase.at)


def monitor(trt: Any, journal: Journal, *, stop: Callable[[], bool] = asked_to_stop) -> Any:
    """Tells the journal how far the build is, in percent, and TensorRT to give up once `stop` says so."""
    nesting, lock = Nesting(), Lock()

    def tell() -> None:
        journal.progress(int(100 * nesting.share), 100)

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with lock:
                nesting.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with lock:
                nesting.step(phase_name, step)
                tell()
            return not stop()

        def phase_finish(self, phase_name: str) -> None:
            with lock:
                nesting.finish(phase_name)
                tell()

    return Monitor()
