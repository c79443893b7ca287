"""Recorded decisions of a real HorizontalPodAutoscaler against what this formula decides from the same
inputs.

Exists because the only proof that a page may show an HPA's reasoning is that a real one reasoned the same
way. Refused: feeding back our own sizes, which would let one early mistake hide behind itself; every sync
gets the recorded inputs, and only the memory is carried over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from deployments.domain.hpa.decide import Decision, decide
from deployments.domain.hpa.errors import InvalidHpa
from deployments.domain.hpa.spec import HpaSpec
from deployments.domain.hpa.state import CLUSTER, Controller, HpaState, Observation, Reading

_COUNTS = ("spec_replicas", "status_replicas", "ready_replicas", "desired_replicas", "spec_replicas_after")
_WORDS = {"error": "the source answered with an error", "empty": "the source returned no values"}


class NotATrace(ValueError):
    """The document is not a recording of an HPA; the message says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Sync:
    """One recorded sync: what went in, and what the controller made of it."""

    observation: Observation
    metrics: Mapping[str, Any]
    desired_replicas: int
    spec_replicas_after: int
    conditions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Recording:
    scenario: str
    spec: HpaSpec
    syncs: tuple[Sync, ...]


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A sync that was decided differently. `expected` is the recording, `got` the formula, by field."""

    t_s: float
    expected: Mapping[str, Any]
    got: Mapping[str, Any]
    inputs: Mapping[str, Any]
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """`read_late` counts the syncs whose size before was read after the controller had changed it."""

    scenario: str
    decisions: int
    read_late: int
    disagreements: tuple[Disagreement, ...]

    @property
    def agreeing(self) -> int:
        return self.decisions - len(self.disagreements)


def read_recording(document: object) -> Recording:
    """Raises NotATrace, or InvalidHpa for an HPA spec that cannot be understood."""
    if not isinstance(document, Mapping) or "hpa_spec" not in document or "syncs" not in document:
        raise NotATrace("it has no hpa_spec and syncs, so it is not a recorded HPA.")
    spec = HpaSpec.from_json(document["hpa_spec"])
    if not isinstance(document["syncs"], list) or not document["syncs"]:
        raise NotATrace("its syncs are not a list with at least one entry.")
    return Recording(
        scenario=str(document.get("scenario", "")),
        spec=spec,
        syncs=tuple(_sync(entry, i) for i, entry in enumerate(document["syncs"])),
    )


def replay(recording: Recording, *, controller: Controller = CLUSTER) -> Result:
    state, previous = HpaState(), None
    disagreements, late = [], 0
    for sync, following in zip_longest(recording.syncs, recording.syncs[1:]):
        found = _before_the_write(sync, previous)
        late += found is not sync.observation
        observation = replace(found, now_s=_moment(sync, following, controller))
        decision, state = decide(recording.spec, state, observation, controller=controller)
        if differing := _compare(sync, observation, decision):
            disagreements.append(differing)
        previous = sync
    return Result(
        scenario=recording.scenario,
        decisions=len(recording.syncs),
        read_late=late,
        disagreements=tuple(disagreements),
    )


def _moment(sync: Sync, following: Sync | None, controller: Controller) -> float:
    """When the sync was.

    The recorded time is the moment a metric was fetched; where none was, it is a guess that can come too
    late. The controller queues its next sync when one has ended, so one was never less than a period before
    the next.
    """
    recorded = sync.observation.now_s
    if sync.metrics or following is None:
        return recorded
    return min(recorded, following.observation.now_s - controller.sync_period_s)


def _before_the_write(sync: Sync, previous: Sync | None) -> Observation:
    """The size as the controller found it.

    A recorder polls, so its "before" can be read after the controller's write. Such a sync gives itself
    away: it says that the size was changed (SucceededRescale), while before and after are equal and both
    differ from the sync before. Then the size of the sync before is what the controller found; a status
    that already follows the new size is put back with it.
    """
    seen = sync.observation
    rescaled = sync.conditions.get("AbleToScale") == "True SucceededRescale"
    if previous is None or not rescaled or not sync.metrics:
        return seen
    found = previous.spec_replicas_after
    if seen.spec_replicas != sync.spec_replicas_after or found == seen.spec_replicas:
        return seen
    follows = seen.status_replicas == seen.spec_replicas
    return replace(seen, spec_replicas=found, status_replicas=found if follows else seen.status_replicas)


def _compare(sync: Sync, observation: Observation, decision: Decision) -> Disagreement | None:
    got: dict[str, Any] = {
        "desired_replicas": decision.reported_replicas,
        "spec_replicas_after": decision.desired_replicas,
        **{condition.type: str(condition) for condition in decision.conditions},
    }
    recorded: dict[str, Any] = {
        "desired_replicas": sync.desired_replicas,
        "spec_replicas_after": sync.spec_replicas_after,
        **sync.conditions,
    }
    # Condition types that this formula never sets are the controller's own business.
    differing = [name for name in got if got[name] != recorded.get(name)]
    if not differing:
        return None
    return Disagreement(
        t_s=sync.observation.now_s,
        expected={name: recorded.get(name) for name in differing},
        got={name: got[name] for name in differing},
        inputs={
            "metrics": dict(sync.metrics),
            "spec_replicas": observation.spec_replicas,
            "status_replicas": observation.status_replicas,
            "ready_replicas": observation.ready_replicas,
        },
        sentence=decision.sentence(),
    )


def _sync(entry: object, index: int) -> Sync:
    where = f"syncs[{index}]"
    if not isinstance(entry, Mapping):
        raise NotATrace(f"{where} is not an object.")
    if missing := [key for key in ("t_s", "metrics", "conditions", *_COUNTS) if key not in entry]:
        raise NotATrace(f"{where} has no {missing[0]}.")
    if wrong := [key for key in _COUNTS if not isinstance(entry[key], int)]:
        raise NotATrace(f"{where}.{wrong[0]} is {entry[wrong[0]]!r}, not a number of replicas.")
    if not isinstance(entry["t_s"], int | float):
        raise NotATrace(f"{where}.t_s is {entry['t_s']!r}, not a number of seconds.")
    if wrong := [key for key in ("metrics", "conditions") if not isinstance(entry[key], Mapping)]:
        raise NotATrace(f"{where}.{wrong[0]} is not an object.")
    try:
        observation = Observation(
            now_s=float(entry["t_s"]),
            spec_replicas=entry["spec_replicas"],
            status_replicas=entry["status_replicas"],
            ready_replicas=entry["ready_replicas"],
            readings={str(name): _reading(value) for name, value in entry["metrics"].items()},
        )
    except InvalidHpa as refused:
        raise NotATrace(f"{where}: {refused}") from None
    return Sync(
        observation=observation,
        metrics=entry["metrics"],
        desired_replicas=entry["desired_replicas"],
        spec_replicas_after=entry["spec_replicas_after"],
        conditions={str(kind): str(condition) for kind, condition in entry["conditions"].items()},
    )


def _reading(value: object) -> Reading:
    if isinstance(value, str) and value in _WORDS:
        return Reading.failed(_WORDS[value])
    # A recorder adds up floats: 0.1 and 0.2 make a little more than 0.3, which is not one thousandth more.
    return Reading.of(round(value, 6) if isinstance(value, float) else value)
