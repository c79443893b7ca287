"""The metric vocabulary, and how a serving stack spells it.

Each stack declares one map from canonical words to its Prometheus names; everything after the parser knows
only the words. A word that a stack does not speak is missing from its map, and what would be made of it says
so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self


class Word(StrEnum):
    REQUESTS = "requests"
    ERRORS = "errors"
    LATENCY = "latency"
    QUEUE_DEPTH = "queue_depth"
    IN_FLIGHT = "in_flight"
    QUEUE_SECONDS = "queue_seconds_total"
    IN_FLIGHT_SECONDS = "in_flight_seconds_total"
    BATCH_SIZE = "batch_size"
    GPU_UTILIZATION = "gpu_utilization"


# What signals and rollups are made of. The rest of the vocabulary is checked by conformance, not followed.
COUNTERS: Final = frozenset({Word.REQUESTS, Word.ERRORS, Word.QUEUE_SECONDS, Word.IN_FLIGHT_SECONDS})
GAUGES: Final = frozenset({Word.QUEUE_DEPTH, Word.IN_FLIGHT})

# Almost every client library prints it; when it moves, the process is another one whatever the counters say.
PROCESS_START: Final = "process_start_time_seconds"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where one word comes from: a Prometheus name, the factor to canonical units (seconds), and for errors
    the label that holds the reason. Series whose labels differ from `where` are left out; the others are
    summed."""

    name: str
    scale: float = 1.0
    reason_label: str = "reason"
    where: Mapping[str, str] = field(default_factory=dict)

    def takes(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(name) == value for name, value in self.where.items())


@dataclass(frozen=True, eq=False)
class MetricsMap:
    """A stack's spelling of the vocabulary. Compared by identity: one object per stack."""

    sources: Mapping[Word, Source]
    sample_names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        names = {PROCESS_START}
        for word in COUNTERS | GAUGES:
            if word in self.sources:
                names.add(self.sources[word].name)
        if Word.LATENCY in self.sources:
            names |= {self.sources[Word.LATENCY].name + end for end in ("_bucket", "_sum", "_count")}
        object.__setattr__(self, "sample_names", frozenset(names))

    @classmethod
    def of(cls, words: Mapping[str, str | Source]) -> Self:
        """From `{"requests": "slipway_requests_total", ...}`. ValueError names a word that is none of
        ours."""
        return cls(
            {
                Word(word): source if isinstance(source, Source) else Source(name=source)
                for word, source in words.items()
            }
        )

    def speaks(self, *words: Word) -> bool:
        """Whether the stack speaks at least one of these words."""
        return any(word in self.sources for word in words)
