"""What a child says while it works: steps, progress, points of curves and log lines, as the sandbox's messages.

Progress and points are throttled here, because every message ends as a row or a tick somewhere.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

type Emit = Callable[[dict[str, Any]], None]

PROGRESS_EVERY_S = 0.5


@dataclass(kw_only=True)
class Journal:
    """`steps` is how many steps the whole child has, so that a page can say 2 of 4."""

    emit: Emit
    steps: int
    _index: int = 0
    _next_progress: float = field(default=0.0)
    _next_point: dict[str, float] = field(default_factory=dict)

    def step(self, name: str) -> None:
        self._index += 1
        self._next_progress = 0.0
        self.emit({"kind": "step", "name": name, "index": self._index, "of": max(self.steps, self._index)})

    def progress(self, done: int, total: int) -> None:
        """At most two a second, and always the last one."""
        now = time.monotonic()
        if now >= self._next_progress or done >= total:
            self._next_progress = now + PROGRESS_EVERY_S
            self.emit({"kind": "progress", "done": done, "total": total})

    def point(self, curve: str, *, step: int, values: Mapping[str, float], last: bool = False) -> None:
        """What the curve's values are after so many steps: at most two points a second, and always the last one."""
        now = time.monotonic()
        if last or now >= self._next_point.get(curve, 0.0):
            self._next_point[curve] = now + PROGRESS_EVERY_S
            self.emit({"kind": "point", "curve": curve, "step": step, "values": dict(values)})

    def info(self, message: str) -> None:
        self.emit({"kind": "log", "level": "info", "message": message})

    def warning(self, message: str) -> None:
        self.emit({"kind": "log", "level": "warning", "message": message})
