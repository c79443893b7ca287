"""Why a cluster's own autoscaler has the size that it has: its word, beside what the same formula makes of our signals.

What the HPA says (sizes, conditions) is the truth; ours is the raw recommendation and the rule in words, where it comes
to the same size. Refused: our number in the place of its own, and a sentence that does not say whose word it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from deployments.autoscaling.local import as_row, observe
from deployments.domain.hpa import CLUSTER, Decision, HpaState, LimitedBy, decide
from deployments.domain.spec import RevisionSpec
from deployments.domain.workload import TargetStatus
from deployments.models import Decision as DecisionRow
from deployments.models import Deployment, Revision
from deployments.telemetry.signals import DeploymentSignals

CANNOT_SCALE, UNEXPLAINED = "cannot_scale", "unexplained"
_LIMITED = {
    "TooManyReplicas": LimitedBy.MAX,
    "TooFewReplicas": LimitedBy.MIN,
    "ScaleUpLimit": LimitedBy.SCALE_UP_POLICY,
    "ScaleDownLimit": LimitedBy.SCALE_DOWN_POLICY,
}
_HELD = {"ScaleDownStabilized", "ScaleUpStabilized", "BackoffBoth", "BackoffDownscale", "BackoffUpscale"}
_SAME = ("current_replicas", "desired_replicas", "raw_recommendation", "limited_by", "conditions")


@dataclass(frozen=True, kw_only=True)
class Said:
    """What an HPA says of itself. `conditions` are by type; `provider` is who answers for external metrics."""

    current: int
    desired: int
    conditions: Mapping[str, Mapping[str, str]]
    provider: str = ""

    @classmethod
    def of(cls, seen: TargetStatus) -> "Said | None":
        """None where there is no HPA, or none that has decided yet."""
        told = seen.autoscaler
        if not told.get("conditions"):
            return None
        current = told.get("current")
        size = int(current if current is not None else seen.wanted or 0)
        desired = told.get("desired")
        return cls(
            current=size,
            desired=int(desired) if desired is not None else size,
            conditions={one["type"]: one for one in told["conditions"]},
            provider=str(told.get("provider") or ""),
        )

    def reason(self, kind: str, *, when: str) -> str:
        """Of a condition that has this status; empty otherwise."""
        one = self.conditions.get(kind) or {}
        return str(one.get("reason", "")) if one.get("status") == when else ""

    def message(self, kind: str) -> str:
        text = " ".join(str((self.conditions.get(kind) or {}).get("message", "")).split())
        return text.rstrip(".") if len(text) <= 300 else f"{text[:297]}..."

    @property
    def limited_by(self) -> str:
        """By its conditions alone."""
        if self.reason("AbleToScale", when="False"):
            return CANNOT_SCALE
        if reason := self.reason("ScalingActive", when="False"):
            return str(
                LimitedBy.SWITCHED_OFF_AT_ZERO if reason == "ScalingDisabled" else LimitedBy.MISSING_METRIC
            )
        if reason := self.reason("ScalingLimited", when="True"):
            return str(_LIMITED.get(reason, UNEXPLAINED))
        return str(
            LimitedBy.STABILIZATION if self.reason("AbleToScale", when="True") in _HELD else LimitedBy.NONE
        )


@dataclass(kw_only=True)
class Explainer:
    """Remembers, per deployment, the formula's memory and the last row. One per collector."""

    _states: dict[int, tuple[int, HpaState]] = field(default_factory=dict)
    _synced: dict[int, tuple[Said, float]] = field(default_factory=dict)
    _ours: dict[int, Decision] = field(default_factory=dict)
    _last: dict[int, DecisionRow] = field(default_factory=dict)

    def look(
        self,
        deployment: Deployment,
        revision: Revision,
        *,
        signals: DeploymentSignals,
        seen: TargetStatus,
        now_s: float,
    ) -> DecisionRow | None:
        """Stores what changed, else counts up. None while the HPA has said nothing. One statement or two."""
        said = Said.of(seen)
        if said is None:
            return None
        before = self._synced.get(deployment.pk)
        ours = self._ours.get(deployment.pk)
        if before is None or ours is None or before[0] != said or now_s - before[1] >= CLUSTER.sync_period_s:
            ours = self._decide(deployment, revision, said, signals=signals, seen=seen, now_s=now_s)
            self._synced[deployment.pk] = (said, now_s)
            self._ours[deployment.pk] = ours
        row = as_row(deployment, ours, signals=signals)
        row.current_replicas, row.desired_replicas = said.current, said.desired
        row.conditions = {
            kind: f"{one['status'] == 'True'} {one['reason']}" for kind, one in said.conditions.items()
        }
        agreed = agrees(ours, said)
        if not agreed:
            row.raw_recommendation, row.limited_by = None, said.limited_by
        row.sentence = sentence(said, ours if agreed else None, ours)
        for name, value in (seen.autoscaler.get("metrics") or {}).items():
            row.signals.setdefault(name, {})["hpa"] = value
        return self._store(row)

    def _decide(
        self,
        deployment: Deployment,
        revision: Revision,
        said: Said,
        *,
        signals: DeploymentSignals,
        seen: TargetStatus,
        now_s: float,
    ) -> Decision:
        """As the controller did at its last sync: from the size that it found then."""
        known = self._states.get(deployment.pk)
        state = known[1] if known is not None and known[0] == revision.pk else HpaState()
        observation = replace(
            observe(deployment, seen=seen, signals=signals, now_s=now_s),
            spec_replicas=said.current,
            status_replicas=said.current,
        )
        ours, after = decide(
            RevisionSpec.from_json(revision.spec).hpa(), state, observation, controller=CLUSTER
        )
        if agrees(ours, said):
            self._states[deployment.pk] = (revision.pk, after)
        return ours

    def _store(self, row: DecisionRow) -> DecisionRow:
        last = self._last.get(row.deployment_id)
        if last is not None and all(getattr(last, name) == getattr(row, name) for name in _SAME):
            last.repeats, last.last_at = last.repeats + 1, row.at
            same = DecisionRow.objects.filter(pk=last.pk)
            if same.update(repeats=last.repeats, last_at=last.last_at):
                return last
        row.save(force_insert=True)
        self._last[row.deployment_id] = row
        return row


def agrees(ours: Decision, said: Said) -> bool:
    """The same size, and both could read their metrics or neither could."""
    blind = bool(said.reason("ScalingActive", when="False"))
    lost = ours.limited_by in (LimitedBy.MISSING_METRIC, LimitedBy.SWITCHED_OFF_AT_ZERO)
    stuck = bool(said.reason("AbleToScale", when="False"))
    return not stuck and blind == lost and ours.desired_replicas == said.desired


def sentence(said: Said, agreed: Decision | None, ours: Decision) -> str:
    """Whose word it is stands in it. What is frozen for a missing metric reads as that, with who owns the metrics."""
    if said.limited_by == LimitedBy.MISSING_METRIC:
        owner = f"; external.metrics.k8s.io is answered by {said.provider}" if said.provider else ""
        cause = said.message("ScalingActive") or said.reason("ScalingActive", when="False")
        return (
            f"Frozen at {said.desired:,}: the cluster's autoscaler cannot read its metric ({cause}){owner}."
        )
    if agreed is not None:
        return f"{agreed.sentence()} The cluster's autoscaler says the same."
    moved = said.desired != said.current
    head = f"Scaled {said.current:,} to {said.desired:,}" if moved else f"Held at {said.desired:,}"
    kind = _telling(said)
    why = f"{said.reason(kind, when='True') or said.reason(kind, when='False')}: {said.message(kind)}"
    return f"{head} by the cluster's autoscaler ({why}); from Slipway's signals it would be {ours.desired_replicas:,}."


def _telling(said: Said) -> str:
    """The condition that limits."""
    if said.reason("ScalingLimited", when="True"):
        return "ScalingLimited"
    if said.reason("ScalingActive", when="False"):
        return "ScalingActive"
    return "AbleToScale"
