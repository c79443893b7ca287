"""A recipe: which techniques, in which order, with which parameters.

It is a value: equal recipes have one canonical JSON and one digest, which is the key under which a result may
be found again. Refused: recipes as graphs. Steps follow one another; alternatives are separate jobs.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from controlplane.core.errors import Unprocessable

MAX_STEPS = 8


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _refused(detail: str) -> Unprocessable:
    return Unprocessable("invalid_recipe", "This is not a recipe.", detail)


@dataclass(frozen=True, kw_only=True)
class Step:
    """`params` is JSON: what the technique's schema accepted, defaults filled in."""

    technique: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"technique": self.technique, "params": json.loads(_canonical(dict(self.params)))}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.steps) <= MAX_STEPS:
            raise _refused(f"It has {len(self.steps)} steps; 1 to {MAX_STEPS} are possible.")

    @property
    def name(self) -> str:
        """Such as `onnx-graph + int8-static`."""
        return " + ".join(step.technique for step in self.steps)

    def to_json(self) -> list[dict[str, Any]]:
        return [step.to_json() for step in self.steps]

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Reads what `to_json` wrote. Raises Unprocessable("invalid_recipe") that says where it breaks.

        The parameters are not judged here: the technique's own schema does that.
        """
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise _refused("A recipe is a list of steps.")
        return cls(steps=tuple(_step(index, item) for index, item in enumerate(value, start=1)))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: the order of steps counts, the order of parameters does not."""
        return hashlib.sha256(_canonical(self.to_json()).encode()).hexdigest()


def _step(index: int, value: object) -> Step:
    if not isinstance(value, Mapping) or not isinstance(value.get("technique"), str):
        raise _refused(f"Step {index} names no technique.")
    if unknown := sorted(str(key) for key in set(value) - {"technique", "params"}):
        raise _refused(f"Step {index} has unknown fields: {', '.join(unknown)}.")
    params = value.get("params", {})
    if not isinstance(params, Mapping) or not all(isinstance(key, str) for key in params):
        raise _refused(f"The parameters of step {index} are not an object.")
    try:
        _canonical(dict(params))
    except (TypeError, ValueError) as error:
        raise _refused(f"The parameters of step {index} are not plain JSON: {error}.") from error
    return Step(technique=value["technique"], params=dict(params))
