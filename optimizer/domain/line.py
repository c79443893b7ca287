"""Who is next: which of the jobs that wait are sent to the workers, and in which order. Pure.

By priority, then the team with the fewest jobs under way, then age. A level is gained for every RISES_AFTER_S of
waiting, so that a stream of urgent work holds up the rest for a while and not for ever. What follows of that, and is
tested: a team's only job goes before the second of any team; nobody exceeds the limit; no room is left unused that
somebody may use; and a job that has risen to the top waits for older ones and its own team's only.
Refused: shares by weight, which need a history to be fair, and a line per team, which needs a worker per team.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

RISES_AFTER_S = 600.0


class Level(IntEnum):
    LOW = 1
    NORMAL = 2
    HIGH = 3


@dataclass(frozen=True, kw_only=True)
class Waiter:
    """A job that is due. Of two, the one with the smaller id is older."""

    job_id: int
    queue: str
    team_id: int
    priority: int
    waited_s: float

    @property
    def level(self) -> int:
        """Its priority, and what waiting has added."""
        return min(int(Level.HIGH), self.priority + int(max(self.waited_s, 0.0) // RISES_AFTER_S))


def next_in_line(
    waiting: Iterable[Waiter], *, room: Mapping[str, int], under_way: Mapping[int, int], limit: int = 0
) -> Iterator[Waiter]:
    """Those to be sent, in order. `room` is how many each queue takes, `under_way` how many jobs each team has sent or
    running, `limit` how many it may have of those (0: any number).

    O(n log n) for all; stop when you have enough."""
    places, busy = dict(room), defaultdict(int, under_way)
    lines: dict[tuple[int, str], deque[Waiter]] = defaultdict(deque)
    for one in sorted(waiting, key=lambda one: (-one.level, one.job_id)):
        lines[one.team_id, one.queue].append(one)
    heads = [_head(line, busy) for line in lines.values()]
    heapq.heapify(heads)
    while heads:
        head = heapq.heappop(heads)
        line = lines[head[-1]]
        first = line[0]
        if places.get(first.queue, 0) <= 0 or (limit and busy[first.team_id] >= limit):
            continue  # neither grows again: this line is through
        if head != _head(line, busy):  # its team was served from another line meanwhile
            heapq.heappush(heads, _head(line, busy))
            continue
        yield line.popleft()
        places[first.queue] -= 1
        busy[first.team_id] += 1
        if line:
            heapq.heappush(heads, _head(line, busy))


type _Head = tuple[int, int, int, tuple[int, str]]


def _head(line: deque[Waiter], busy: Mapping[int, int]) -> _Head:
    """What the first of a line is compared by; the smallest is next."""
    first = line[0]
    return -first.level, busy[first.team_id], first.job_id, (first.team_id, first.queue)
