"""One sync of the local autoscaler for one deployment: observe, decide, write the size, store why.

The formula is `domain.hpa`, fed with signals that are errors when they are stale, so that it holds. The new
state and the decision are kept only if the size was written: two deciders cannot both act on one observation.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deployments import services
from deployments.domain.hpa import LOCAL, Decision, HpaState, InvalidHpa, Observation, Reading, decide
from deployments.domain.spec import RevisionSpec
from deployments.domain.workload import ReplicaState, TargetStatus
from deployments.models import Decision as DecisionRow
from deployments.models import Deployment, Revision
from deployments.telemetry.signals import STALE_PERIODS, DeploymentSignals, Signal, SignalName

KEEP_STATE_EVERY_S = 10.0


@dataclass(kw_only=True)
class Autoscaler:
    """Remembers, per deployment, the HPA's state and the last decision row. One per collector."""

    _states: dict[int, tuple[int, HpaState]] = field(default_factory=dict)
    _kept_at: dict[int, float] = field(default_factory=dict)
    _last: dict[int, DecisionRow] = field(default_factory=dict)

    def sync(
        self,
        deployment: Deployment,
        revision: Revision,
        *,
        signals: DeploymentSignals,
        seen: TargetStatus | None,
        now_s: float,
    ) -> Decision:
        """Decides and acts. Two or three statements, most of them when something changes.

        `now_s` are epoch seconds of a clock that only grows; when it was by the wall is said by the signals.
        """
        state = self._state(deployment, revision, now_s=now_s)
        observation = observe(deployment, seen=seen, signals=signals, now_s=now_s)
        decision, after = decide(
            RevisionSpec.from_json(revision.spec).hpa(), state, observation, controller=LOCAL
        )
        if decision.changed and not services.set_replicas(deployment, replicas=decision.desired_replicas):
            return decision
        self._states[deployment.pk] = (revision.pk, after)
        self._keep(deployment, after, now_s=now_s, at_once=decision.changed)
        self._store(as_row(deployment, decision, signals=signals), within_s=STALE_PERIODS * signals.period_s)
        return decision

    def _state(self, deployment: Deployment, revision: Revision, *, now_s: float) -> HpaState:
        """A new live revision starts afresh: its bounds and targets are others. So does a memory of times to come,
        which a clock left that was set back since."""
        known = self._states.get(deployment.pk)
        if known is not None and known[0] == revision.pk:
            return known[1]
        kept = deployment.hpa_state
        if kept.get("revision") == revision.pk:
            with suppress(InvalidHpa):
                state = HpaState.from_json(kept["state"])
                return state if state.newest_s <= now_s else HpaState()
        return HpaState()

    def _keep(self, deployment: Deployment, state: HpaState, *, now_s: float, at_once: bool) -> None:
        if not at_once and now_s - self._kept_at.get(deployment.pk, 0) < KEEP_STATE_EVERY_S:
            return
        self._kept_at[deployment.pk] = now_s
        revision_id = self._states[deployment.pk][0]
        kept = {"revision": revision_id, "state": state.to_json()}
        Deployment.objects.filter(pk=deployment.pk).update(hpa_state=kept)

    def _store(self, row: DecisionRow, *, within_s: float) -> None:
        """Every decision that holds is stored; one that repeats the last in all its values, and comes soon after
        it, counts up that row if it is still there."""
        last = self._last.get(row.deployment_id)
        if last is not None and _same(last, row) and 0 <= (row.at - last.last_at).total_seconds() <= within_s:
            last.repeats += 1
            last.last_at = row.at
            same = DecisionRow.objects.filter(pk=last.pk)
            if same.update(repeats=last.repeats, last_at=last.last_at):
                return
        row.save(force_insert=True)
        self._last[row.deployment_id] = row


def observe(
    deployment: Deployment, *, seen: TargetStatus | None, signals: DeploymentSignals, now_s: float
) -> Observation:
    """What the formula is told. Draining replicas are on their way out and count for nothing."""
    replicas = [one for one in seen.replicas if one.state is not ReplicaState.DRAINING] if seen else []
    return Observation(
        now_s=now_s,
        spec_replicas=deployment.replicas,
        status_replicas=len(replicas),
        ready_replicas=sum(one.state is ReplicaState.READY for one in replicas),
        readings={name: reading(signals[name]) for name in (SignalName.QUEUE_DEPTH, SignalName.IN_FLIGHT)},
    )


def reading(signal: Signal) -> Reading:
    """A signal as the formula's input: a number with its age, or why there is none."""
    if signal.value is None:
        age = f", last known {signal.age_s:.0f} s ago" if signal.age_s is not None else ""
        return Reading.failed(f"{(signal.error or 'unknown').replace('_', ' ')}{age}")
    return Reading.of(round(signal.value, 3), age_s=signal.age_s)


def as_row(deployment: Deployment, decision: Decision, *, signals: DeploymentSignals) -> DecisionRow:
    at = datetime.fromtimestamp(signals.at_wall, UTC)
    votes = {vote.name: vote for vote in decision.metrics}
    return DecisionRow(
        deployment=deployment,
        at=at,
        last_at=at,
        current_replicas=decision.current_replicas,
        desired_replicas=decision.desired_replicas,
        raw_recommendation=decision.raw_recommendation,
        limited_by=decision.limited_by,
        signals={name.value: _signal(signals[name], votes.get(name)) for name in SignalName},
        conditions={one.type: f"{one.status} {one.reason}" for one in decision.conditions},
        sentence=decision.sentence(),
    )


def _signal(signal: Signal, vote: Any) -> dict[str, Any]:
    document = signal.to_json()
    if vote is not None:
        document |= {"recommendation": vote.replicas}
    return document


def _same(last: DecisionRow, row: DecisionRow) -> bool:
    names = ("current_replicas", "desired_replicas", "raw_recommendation", "limited_by", "conditions")
    return all(getattr(last, name) == getattr(row, name) for name in names) and _values(last) == _values(row)


def _values(row: DecisionRow) -> dict[str, Any]:
    return {
        name: (one["value"], one["error"]) for name, one in row.signals.items() if "recommendation" in one
    }
