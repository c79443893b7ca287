"""How many requests wait and how many are in flight, as gauges and as their integrals over time.

The integral of "number waiting" is the sum of the seconds requests have waited, those that still wait
included. Its slope between two scrapes is the exact mean number waiting (Little's law), however briefly the
queue was long; a gauge read every few seconds misses most of what happens.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Gauge:
    """A number that changes, and its integral. `now` must not go backwards."""

    value: int = 0
    seconds: float = 0.0
    changed_at: float = 0.0

    def add(self, change: int, now: float) -> None:
        self.advance(now)
        self.value += change

    def advance(self, now: float) -> float:
        """The integral up to `now`."""
        self.seconds += self.value * (now - self.changed_at)
        self.changed_at = now
        return self.seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What a replica is busy with at one moment."""

    waiting: int
    in_flight: int
    waiting_seconds: float
    in_flight_seconds: float
