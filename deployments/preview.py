"""What rolling out a revision would do: the plan, what differs from what is live, and what the pre-flight found."""

from dataclasses import dataclass, replace
from typing import Any

from controlplane.registry import gate
from controlplane.registry.engines import Engine
from controlplane.registry.models import Artifact, Variant
from deployments import handover, stacks, targets
from deployments.domain import readable
from deployments.domain.cluster_strategy import Part
from deployments.domain.plan import (
    Change,
    Counts,
    Finding,
    ObjectDiff,
    Plan,
    Severity,
    by_object,
    counts,
    diff,
    digest,
)
from deployments.domain.rollouts import RolloutState
from deployments.domain.spec import RevisionSpec
from deployments.domain.workload import DesiredDeployment
from deployments.models import Deployment, Revision, Rollout
from deployments.wishes import start_size, wish

_ROLLED = 8


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What rolling out would do. `etag` names the live state it was made against; apply must bring it.

    `diff` is what people decided on, live against after (see `domain.readable`); `plan` is the target's own, and
    `theirs` what a take-over changes besides of objects that others made.
    """

    plan: Plan
    diff: tuple[Change, ...]
    findings: tuple[Finding, ...]
    etag: str
    theirs: tuple[ObjectDiff, ...] = ()

    @property
    def blocked(self) -> bool:
        return any(finding.severity is Severity.ERROR for finding in self.findings)

    @property
    def counts(self) -> Counts:
        return counts(self.diff)


def preview(deployment: Deployment, revision: Revision) -> Preview:
    """Plan and pre-flight against what runs now. Talks to the target; changes nothing."""
    target = targets.of(deployment.target)
    desired = wish(
        deployment,
        [Part(revision=revision.number, replicas=start_size(deployment, revision))],
        generation=deployment.generation + 1,
    )
    live = target.desired(deployment.key)
    findings = target.preflight(desired, live=live)
    if revision.variant.artifact.state == Artifact.State.DAMAGED:
        findings = (*findings, _damaged(revision.variant))
    findings = (*findings, *_not_passed(revision.variant), *_of_another_builder(revision))
    plan = target.plan(desired)
    if (taken := handover.plan(deployment, target)) is not None:
        findings = (*findings, *taken.findings)
        plan = replace(plan, live_digest=digest([plan.live_digest, taken.digest]))
    return Preview(
        plan=plan,
        diff=_changes(deployment, live, revision, replicas=desired.workloads[0].replicas),
        findings=findings,
        etag=_etag(deployment, plan),
        theirs=by_object(taken.changes) if taken is not None else (),
    )


def _changes(
    deployment: Deployment, live: DesiredDeployment | None, revision: Revision, *, replicas: int
) -> tuple[Change, ...]:
    """From the revision that has replicas now to the one to come; what is live comes from the target."""
    running = {one.revision: one.replicas for one in live.workloads if one.replicas} if live else {}
    serving = deployment.live_revision
    number = serving.number if serving and serving.number in running else max(running, default=None)
    before = None
    if number is not None:
        row = deployment.revisions.select_related("variant__artifact", "variant__version__model").get(
            number=number
        )
        before = read_revision(row, replicas=sum(running.values()))
    return diff(before, read_revision(revision, replicas=replicas))


def read_revision(row: Revision, *, replicas: int | None = None) -> dict[str, Any]:
    """The revision as people compare it; with `replicas` also its number, as one side of a plan."""
    return readable.document(
        RevisionSpec.from_json(row.spec),
        variant=str(row.variant),
        artifact_sha256=row.variant.artifact.sha256,
        signature=row.variant.signature,
        revision=None if replicas is None else row.number,
        replicas=replicas,
    )


def compare(before: Revision, after: Revision) -> tuple[Change, ...]:
    """What differs between two revisions, whatever runs."""
    return diff(read_revision(before), read_revision(after))


def _etag(deployment: Deployment, plan: Plan) -> str:
    """Two parts, so that a mismatch can be told: what rollouts moved, and everything that runs."""
    mover = last_mover(deployment)
    rolled = digest([deployment.pk, deployment.live_revision_id, mover.pk if mover else None])
    return rolled[:_ROLLED] + digest([deployment.pk, plan.live_digest])[_ROLLED:32]


def rolled_out_since(etag: str, shown: Preview) -> bool:
    """Whether a rollout moved what runs after the plan of `etag`, and not only its size or its key."""
    return etag[:_ROLLED] != shown.etag[:_ROLLED]


def last_mover(deployment: Deployment) -> Rollout | None:
    """The last rollout that has begun to move something."""
    begun = deployment.rollouts.exclude(state=RolloutState.PENDING)
    return begun.select_related("created_by", "to_revision").first()


def _not_passed(variant: Variant) -> tuple[Finding, ...]:
    """No more than a warning: trying a variant out is what a deployment of its own is for. One query."""
    reasons = gate.failures(variant, gate.Gate.from_json(variant.version.model.gate))
    if not reasons:
        return ()
    warning = Finding.warning(
        "gate_failed",
        "The variant has not passed its model's gate.",
        " ".join(reasons),
        "Choose another variant, or go on if this is to be tried out.",
    )
    return (warning,)


def _of_another_builder(revision: Revision) -> tuple[Finding, ...]:
    """A warning, since nobody has seen it fail: the two products are near, and their engines are not the same."""
    engine = Engine.of(revision.variant.provenance)
    stack = stacks.load(revision.spec["stack"])
    if engine is None or not stack.engines or engine.label in stack.engines:
        return ()
    warning = Finding.warning(
        "engine_of_another_builder",
        f"{stack.label} may not load this engine.",
        f"It was built by {engine.label} {engine.version}; {stack.label} loads engines of "
        f"{' and '.join(stack.engines)}.",
        f"Build it with {' or '.join(stack.engines)} on a worker with such a GPU, or serve the ONNX variant.",
    )
    return (warning,)


def _damaged(variant: Variant) -> Finding:
    return Finding.error(
        "integrity",
        "The variant's stored bytes are damaged.",
        f"{variant.artifact.sha256} no longer matches what is on disk.",
        "Upload the same file again; it mends the stored bytes.",
    )
