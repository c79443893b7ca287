"""Importing a Deployment that others made in a cluster: it is read as a revision, and only looked at until somebody
takes it over (see `handover`)."""

from dataclasses import replace
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from controlplane.accounts.access import Actor
from controlplane.accounts.models import Role
from controlplane.core.errors import Conflict, Unprocessable
from controlplane.core.rows import locked
from controlplane.registry.models import Variant
from deployments import services, specs, targets, trail, transitions
from deployments.domain.origin import Other, Reading
from deployments.domain.spec import RevisionSpec
from deployments.domain.workload import MAX_REPLICAS
from deployments.models import Deployment, ImportedFrom, Revision, Target
from deployments.targets.port import Origins, SharedTarget

_OURS = "-slipway"


def importable(target: Target) -> tuple[Other, ...]:
    """What others run in the target's namespace and nobody imported. Asks the cluster now; raises what it raises."""
    taken = set(ImportedFrom.objects.filter(deployment__target=target).values_list("name", flat=True))
    return tuple(one for one in origins_of(target).all() if one.name not in taken)


def read(target: Target, source: str) -> Reading:
    """The Deployment `source` as a revision says it. Raises NotFound."""
    return origins_of(target).read(source)


def spec_of(reading: Reading, target: Target, *, stack: str = "") -> RevisionSpec:
    """What is not said of it gets the target's defaults; without `stack` it is guessed. Raises InvalidInput that names
    the field."""
    spec = specs.read_spec(reading.spec | ({"stack": stack} if stack else {}), target)
    low, high = (reading.bounds.get(name) for name in ("minReplicas", "maxReplicas"))
    if low is None or high is None:
        return spec
    high = min(high, MAX_REPLICAS)
    return replace(spec, autoscaling=spec.autoscaling | {"minReplicas": min(low, high), "maxReplicas": high})


def import_deployment(
    actor: Actor, target: Target, *, source: str, name: str, variant: Variant, stack: str
) -> tuple[Deployment, Revision]:
    """The deployment and its revision 1, which is what would run in the place of `source`. Changes nothing in the
    cluster. Raises Conflict where it was imported already."""
    actor.require(Role.ENGINEER)
    reading = read(target, source)
    _refuse_its_own_name(name, reading)
    spec = spec_of(reading, target, stack=stack)
    try:
        with transaction.atomic():
            locked(target)  # of two who import the same one, the second is told
            row, revision, _ = services.create_with_revision(
                actor, name=name, target=target, protected=False, variant=variant, spec=spec
            )
            _refuse_twice(row, source)
            ImportedFrom.objects.create(
                deployment=row, name=source, moved_at=Now(), origin=reading.origin.to_json()
            )
            Deployment.objects.filter(pk=row.pk).update(replicas=min(reading.origin.replicas, MAX_REPLICAS))
            trail.record(actor, "imported", row, details={"from": source})
            transitions.request_reconcile(row.pk)
    except IntegrityError as error:
        raise _imported(source) from error
    return Deployment.objects.get(pk=row.pk), revision


def proposed_name(source: str) -> str:
    """Not the same: both have objects in one namespace while one takes over from the other."""
    return f"{source[: 63 - len(_OURS)].rstrip('-')}{_OURS}"


def _refuse_its_own_name(name: str, reading: Reading) -> None:
    if name in (reading.other.name, *reading.other.services):
        raise Conflict(
            "name_taken",
            f"“{name}” is the name of what others run.",
            f"Slipway's objects stand beside theirs. Choose another name, such as {proposed_name(name)}.",
            fields={"name": [f"Theirs is called so. Choose another, such as {proposed_name(name)}."]},
        )


def _refuse_twice(row: Deployment, source: str) -> None:
    others = ImportedFrom.objects.filter(deployment__target=row.target, name=source)
    if other := others.select_related("deployment").first():
        raise _imported(source, extra={"deployment": other.deployment.name})


def _imported(source: str, **more: Any) -> Conflict:
    return Conflict(
        "already_imported",
        f"“{source}” was imported already.",
        "Open the deployment that it became, or remove that first: removing changes nothing in the cluster.",
        **more,
    )


def origins_of(target: Target) -> Origins:
    """Raises Unprocessable for a target on which nobody else runs anything."""
    opened = targets.of(target)
    if not isinstance(opened, SharedTarget):
        raise Unprocessable(
            "no_cluster", f"“{target.name}” is no cluster.", "Only what runs in a cluster can be imported."
        )
    return opened.origins
