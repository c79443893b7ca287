"""Closed windows that wait for the database: a short outage leaves no gap in a chart.

They are lost with the process. Refused: a file beside the database, which would be a second store to keep.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

import structlog

from deployments.telemetry.rollup import Window

log = structlog.get_logger(__name__)

MOST_WINDOWS = 20_000
"""About 30 MB: a quarter of an hour of a hundred replicas, hours of ten."""


@dataclass(kw_only=True)
class Backlog:
    """Oldest first. Where it is full the oldest go; `dropped` counts them."""

    most: int = MOST_WINDOWS
    dropped: int = 0
    _waiting: deque[Window] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, windows: Iterable[Window]) -> None:
        self._waiting.extend(windows)
        over = len(self._waiting) - self.most
        if over <= 0:
            return
        for _ in range(over):
            self._waiting.popleft()
        self.dropped += over
        log.warning("windows_dropped", now=over, in_all=self.dropped, kept=self.most)

    def first(self, count: int) -> list[Window]:
        """The oldest ones. They stay until `written` says otherwise."""
        return list(islice(self._waiting, count))

    def written(self, count: int) -> None:
        for _ in range(count):
            self._waiting.popleft()
