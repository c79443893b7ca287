"""The report: all evidence of one evaluation, as one versioned JSON value.

Pages, the API and the planner read this and nothing else, so a report says how each number was got. A
number that could not be had is null; JSON has no infinity.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

from optimizer.domain.verdict import Judgment, Policy
from optimizer.evaluation.accuracy import Accuracy
from optimizer.evaluation.benchmark import Control, Timing
from optimizer.evaluation.clocks import Clocks
from optimizer.evaluation.footprint import Footprint
from optimizer.evaluation.machine import Machine

REPORT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Service time of one request of `batch_size` items: the planner's input."""

    batch_size: int
    median_ms: float
    p25_ms: float
    p90_ms: float
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Method:
    """How it was measured. `cores`: pinned to these, empty if pinning was not possible. The clocks are of the timing,
    of these cores or all there are; None where nothing was timed. `parent_runs_by`: what answered for it, and how that
    was set."""

    threads: int
    cores: tuple[int, ...]
    seed: int
    budget_s: float
    elapsed_s: float
    load_average_before: float
    load_average_after: float
    clocks_before: Clocks | None
    clocks_after: Clocks | None
    parent_runs_by: str
    variant_runs_by: str
    interleaved: bool
    inputs: str


@dataclass(frozen=True, kw_only=True)
class Report:
    judgment: Judgment
    policy: Policy
    machine: Machine
    method: Method
    control: tuple[Control, ...]
    timings: tuple[Timing, ...]
    accuracy: Accuracy | None
    service_curve: tuple[CurvePoint, ...]
    parent: Footprint
    variant: Footprint
    promises: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: finite numbers, strings, lists and objects."""
        value = plain(self)
        judgment = value.pop("judgment")
        noisy = any(timing.noisy for timing in self.timings)
        return {"version": REPORT_VERSION, **judgment, "noisy": noisy, **value}


def plain(value: Any) -> Any:
    match value:
        case Enum():
            return value.value
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case float():
            return value if math.isfinite(value) else None
        case _:
            return value
