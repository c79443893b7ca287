"""Which waiting requests leave together, and when: the rule of the micro-batcher, without threads or clocks.

Triton's rule. Requests wait in lanes, one per shape, because rows of different shapes cannot be one tensor. A
batch leaves when its rows are exactly a preferred size, when the largest batch is full, or when its oldest
request has waited the delay; the largest preferred size that fits goes first. A request that belongs to no
batch axis is a batch of its own and never waits for company.
Refused: one queue in arrival order across shapes, where a single odd shape splits every batch around it.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from deployments.stacks.batching import Batching


@dataclass(eq=False, slots=True, kw_only=True)
class Waiting:
    """A request in the queue. `lane` None means: alone. `since` is on the monotonic clock."""

    lane: Hashable | None
    rows: int
    since: float
    feeds: dict[str, Any] = field(default_factory=dict)
    answer: Any = None


@dataclass(slots=True)
class _Lane:
    items: OrderedDict[Waiting, None] = field(default_factory=OrderedDict)
    rows: int = 0

    @property
    def oldest(self) -> float:
        return next(iter(self.items)).since

    def pop(self, count: int) -> list[Waiting]:
        taken = [self.items.popitem(last=False)[0] for _ in range(count)]
        self.rows -= sum(item.rows for item in taken)
        return taken


class Lanes:
    """Everything that waits. Not thread-safe: the batcher holds its lock around every call."""

    def __init__(self, batching: Batching) -> None:
        self._max = batching.max_batch_size
        self._preferred = frozenset(batching.preferred_batch_size)
        self._smallest = min(self._preferred, default=self._max)
        self._delay_s = batching.max_queue_delay_microseconds / 1e6
        self._lanes: dict[Hashable | None, _Lane] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, item: Waiting) -> bool:
        """True where a batch may be able to leave at once, so it is worth waking whoever forms them."""
        lane = self._lanes.setdefault(item.lane, _Lane())
        lane.items[item] = None
        lane.rows += item.rows
        self._count += 1
        return item.lane is None or lane.rows >= self._smallest

    def discard(self, item: Waiting) -> bool:
        """Take out a request nobody waits for any more. False where it has left already."""
        lane = self._lanes.get(item.lane)
        if lane is None or item not in lane.items:
            return False
        del lane.items[item]
        lane.rows -= item.rows
        self._left(item.lane, lane, 1)
        return True

    def take(self, now: float) -> list[Waiting]:
        """The batch that leaves at `now`, oldest lane first; empty when nothing may leave yet."""
        for key, lane in sorted(self._lanes.items(), key=lambda row: row[1].oldest):
            count = self._leaving(key, lane, now)
            if count:
                taken = lane.pop(count)
                self._left(key, lane, count)
                return taken
        return []

    def deadline(self) -> float | None:
        """When the oldest request will have waited the delay; None when nothing waits."""
        oldest = min((lane.oldest for lane in self._lanes.values()), default=None)
        return None if oldest is None else oldest + self._delay_s

    def _leaving(self, key: Hashable | None, lane: _Lane, now: float) -> int:
        if key is None:
            return 1
        rows = fitting = preferred = 0
        for count, item in enumerate(lane.items, 1):
            rows += item.rows
            if rows > self._max:
                break
            fitting = count
            if rows in self._preferred:
                preferred = count
        if preferred:
            return preferred
        full = lane.rows >= self._max
        return fitting if full or now >= lane.oldest + self._delay_s else 0

    def _left(self, key: Hashable | None, lane: _Lane, count: int) -> None:
        self._count -= count
        if not lane.items:
            del self._lanes[key]
