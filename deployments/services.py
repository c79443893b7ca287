"""The verbs on deployments. They write rows; the reconciler makes them so."""

import hashlib
import secrets
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import F, Value
from django.db.models.functions import Least, Now

from controlplane.accounts.access import Actor
from controlplane.accounts.models import Role, Team
from controlplane.core.errors import Conflict, NotFound, PreconditionFailed, Unprocessable
from controlplane.core.names import check_name
from controlplane.core.rows import locked
from controlplane.registry.models import Variant
from deployments import canaries, handover, targets, trail, transitions
from deployments.domain.plan import Severity
from deployments.domain.rollouts import ACTIVE, RolloutState
from deployments.domain.spec import RevisionSpec
from deployments.models import Deployment, Load, Revision, Rollout, Target
from deployments.preview import Preview, last_mover, preview, rolled_out_since
from deployments.selectors import active_rollout, is_read_only
from deployments.specs import on_target, refuse_unusable
from deployments.wishes import start_size

MAX_LOAD_PER_S = 200.0
MAX_LOAD_S = 1800
THIS_MACHINE = "this-machine"


def add_this_machine(team: Team) -> Target:
    """The target that a team has from its beginning; see `apps`."""
    return Target.objects.create(team=team, name=THIS_MACHINE, kind="local")


def create_deployment(
    actor: Actor, *, name: str, target: Target, protected: bool = False
) -> tuple[Deployment, str]:
    """Returns the deployment and, if `protected`, the API key of its endpoint: shown once, kept as a digest."""
    actor.require(Role.ENGINEER)
    check_name(name, what="deployment")
    key = _new_key() if protected else ""
    try:
        with transaction.atomic():
            deployment = Deployment.objects.create(
                team=actor.team,
                name=name,
                target=target,
                api_key_sha256=_digest_of(key),
                created_by=actor.user,
            )
            trail.record(actor, "created", deployment)
    except IntegrityError as error:
        raise Conflict(
            "deployment_exists",
            f"The team already has a deployment “{name}”.",
            "Add a revision to it, or choose another name.",
            fields={"name": ["This name is taken in your team."]},
        ) from error
    return deployment, key


def _new_key() -> str:
    return secrets.token_urlsafe(32)


def _digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest() if key else ""


def rotate_key(actor: Actor, deployment: Deployment, *, seen: str | None = None) -> str:
    """A new API key for the endpoint, or its first one: shown once, kept as a digest.

    Each replica answers the key that it was started with, and they are replaced one by one. `seen` is
    `api_key_seen` of what the caller looked at; raises Conflict when the key was changed since.
    """
    key = _new_key()
    verb = "rotated the API key of" if deployment.api_key_sha256 else "added an API key to"
    _set_key(actor, deployment, key, verb=verb, seen=seen)
    return key


def remove_key(actor: Actor, deployment: Deployment, *, seen: str | None = None) -> None:
    """From then on everyone who reaches the address may ask. Removing twice is the same."""
    actor.require(Role.ENGINEER)
    if deployment.api_key_sha256:
        _set_key(actor, deployment, "", verb="removed the API key of", seen=seen)


def _set_key(actor: Actor, deployment: Deployment, key: str, *, verb: str, seen: str | None) -> None:
    actor.require(Role.ENGINEER)
    if deployment.removing:
        raise _removing(deployment)
    unchanged = Deployment.objects.filter(pk=deployment.pk, api_key_sha256=deployment.api_key_sha256)
    with transaction.atomic():
        if seen not in (None, deployment.api_key_seen) or not unchanged.update(
            api_key_sha256=_digest_of(key)
        ):
            raise Conflict(
                "key_moved",
                f"The API key of “{deployment.name}” was changed meanwhile.",
                "Look at it again, and change it once more if that is still wanted.",
            )
        if key:
            # Slipway keeps no key that it could send the load with.
            Load.objects.filter(deployment=deployment, until__gt=Now()).update(until=Now())
        trail.record(actor, verb, deployment)
        transitions.announce(deployment)
        transitions.request_reconcile(deployment.pk)


def create_with_revision(
    actor: Actor, *, name: str, target: Target, protected: bool, variant: Variant, spec: RevisionSpec
) -> tuple[Deployment, Revision, str]:
    """The deployment and its revision 1, both or neither; and the endpoint's key as `create_deployment`."""
    with transaction.atomic():
        deployment, key = create_deployment(actor, name=name, target=target, protected=protected)
        return deployment, add_revision(actor, deployment, variant=variant, spec=spec), key


def add_revision(actor: Actor, deployment: Deployment, *, variant: Variant, spec: RevisionSpec) -> Revision:
    """Fixes what could be rolled out. Nothing moves yet. Raises Unprocessable for a spec that cannot run."""
    actor.require(Role.ENGINEER)
    spec = on_target(spec, deployment.target, variant)
    refuse_unusable(deployment, variant, spec)
    with transaction.atomic():
        current = locked(deployment)
        if current.removing:
            raise _removing(deployment)
        number = current.revision_count + 1
        revision = Revision.objects.create(
            deployment=deployment, number=number, variant=variant, spec=spec.to_json(), created_by=actor.user
        )
        Deployment.objects.filter(pk=deployment.pk).update(revision_count=number)
        trail.record(
            actor, "added a revision to", deployment, details={"revision": number, "variant": str(variant)}
        )
        transitions.announce(deployment)
    return revision


def _removing(deployment: Deployment) -> Conflict:
    return Conflict(
        "removing",
        f"“{deployment.name}” is being removed.",
        "Wait until it is gone, then create it again, or use another name.",
    )


def roll_out(
    actor: Actor, deployment: Deployment, revision: Revision, *, etag: str | None, kind: str = "update"
) -> Rollout:
    """Starts the move to `revision`. `etag` is of the preview that was shown; None skips the check.

    Raises PreconditionFailed when what runs has moved since, Conflict when another rollout is under way
    (naming whose) or the pre-flight found an error.
    """
    actor.require(Role.ENGINEER)
    handover.refuse_under_way(deployment)
    shown = preview(deployment, revision)
    if etag is not None and (given := etag.removeprefix("W/").strip('"')) != shown.etag:
        raise _moved(deployment, rolled_out=rolled_out_since(given, shown))
    if shown.blocked:
        first = next(one for one in shown.findings if one.severity is Severity.ERROR)
        raise Conflict("preflight_failed", first.title, f"{first.evidence} {first.action}")
    try:
        with transaction.atomic():
            rollout = _start(actor, deployment, revision, shown=shown, kind=kind)
    except IntegrityError as error:
        raise _rollout_active(deployment) from error
    return rollout


def _start(actor: Actor, deployment: Deployment, revision: Revision, *, shown: Preview, kind: str) -> Rollout:
    current = locked(deployment)
    if current.removing:
        raise _removing(deployment)
    if active_rollout(current) is not None:
        raise _rollout_active(current)
    if current.live_revision_id != deployment.live_revision_id:
        raise _moved(current, rolled_out=True)
    rollout = Rollout.objects.create(
        deployment=deployment,
        from_revision=current.live_revision,
        to_revision=revision,
        kind=kind,
        plan=[change.to_json() for change in shown.diff],
        progressed_at=Now(),
        created_by=actor.user,
    )
    Deployment.objects.filter(pk=deployment.pk).update(replicas=start_size(current, revision))
    verb = "started a rollback of" if kind == "rollback" else "started a rollout of"
    trail.record(actor, verb, deployment, details={"revision": revision.number, "rollout": rollout.pk})
    transitions.record(rollout, kind="pending", message=f"Rollout to revision {revision.number} requested.")
    transitions.request_reconcile(deployment.pk)
    return rollout


def _rollout_active(deployment: Deployment) -> Conflict:
    active = Rollout.objects.filter(deployment=deployment, state__in=list(ACTIVE)).select_related(
        "to_revision", "created_by"
    )
    winner = active.first()
    who = (
        f"{winner.created_by or 'Slipway'} is rolling out revision {winner.to_revision.number}"
        if winner
        else ""
    )
    return Conflict(
        "rollout_active",
        f"Another rollout of “{deployment.name}” is under way.",
        f"{who}. Wait for it, or cancel it first.",
        extra={
            "rollout": winner.pk if winner else None,
            "revision": winner.to_revision.number if winner else None,
        },
    )


def _moved(deployment: Deployment, *, rolled_out: bool) -> PreconditionFailed:
    mover = last_mover(deployment) if rolled_out else None
    who = (
        f"{mover.created_by or 'Slipway'} rolled out revision {mover.to_revision.number}."
        if mover
        else "Its size or its API key changed; nothing was rolled out."
    )
    return PreconditionFailed(
        "live_state_moved",
        "What runs has moved since this plan was shown.",
        f"{who} Look at the new plan, then apply it.",
    )


def cancel_rollout(actor: Actor, rollout: Rollout) -> Rollout:
    """Turns a rollout round: the old revision gets its replicas back. Conflict when it is over already."""
    actor.require(Role.ENGINEER)
    with transaction.atomic():
        if not _turn_round(rollout, by=str(actor.user or "Slipway")):
            rollout.refresh_from_db(fields=["state"])
            raise Conflict(
                "rollout_not_cancellable",
                f"This rollout is {rollout.get_state_display().lower()}.",
                "There is nothing left to cancel.",
            )
        trail.record(actor, "cancelled a rollout of", rollout.deployment, details={"rollout": rollout.pk})
        transitions.request_reconcile(rollout.deployment_id)
    return rollout


def _turn_round(rollout: Rollout, *, by: str) -> bool:
    """What has not begun, or has nothing to go back to, is over at once; the rest goes back step by step."""
    moves = [(RolloutState.CANCELLED, f"Cancelled by {by}.", [RolloutState.PENDING])]
    under_way = [RolloutState.RUNNING, RolloutState.PAUSED]
    if rollout.from_revision_id is None:
        moves.append((RolloutState.CANCELLED, f"Cancelled by {by}.", under_way))
    else:
        moves.append((RolloutState.ROLLING_BACK, f"Cancelled by {by}; going back.", under_way))
    return any(
        transitions.move_rollout(
            rollout, to=to, message=message, evidence=canaries.judged(rollout), only_from=list(states)
        )
        for to, message, states in moves
    )


def scale(actor: Actor, deployment: Deployment, *, replicas: int) -> None:
    """A person's choice within the live revision's bounds; the autoscaler goes on from there."""
    actor.require(Role.ENGINEER)
    if deployment.live_revision is None:
        raise Conflict("nothing_live", f"“{deployment.name}” has no live revision.", "Roll one out first.")
    spec = RevisionSpec.from_json(deployment.live_revision.spec)
    theirs = spec.cluster is not None and spec.cluster.autoscaler in ("hpa", "keda")
    if theirs and not deployment.autoscaling_paused:
        raise Conflict(
            "scaled_by_cluster",
            f"The cluster's autoscaler holds the size of “{deployment.name}”.",
            "Pause autoscaling first; it would take another size back within seconds.",
        )
    hpa = spec.hpa()
    if not hpa.min_replicas <= replicas <= hpa.max_replicas:
        raise Unprocessable(
            "out_of_bounds",
            f"{replicas} replicas are outside the revision's bounds.",
            f"It allows {hpa.min_replicas} to {hpa.max_replicas}; add a revision with other bounds.",
            fields={"replicas": [f"Use {hpa.min_replicas} to {hpa.max_replicas}."]},
        )
    with transaction.atomic():
        if not set_replicas(deployment, replicas=replicas):
            raise Conflict(
                "size_moved",
                f"The size of “{deployment.name}” moved while you chose.",
                "Look at the number of replicas again, then scale.",
            )
        trail.record(actor, "scaled", deployment, details={"from": deployment.replicas, "to": replicas})


def pause_autoscaling(actor: Actor, deployment: Deployment, *, paused: bool) -> None:
    """Paused, the number of replicas is a person's alone."""
    actor.require(Role.ENGINEER)
    with transaction.atomic():
        if Deployment.objects.filter(pk=deployment.pk, autoscaling_paused=not paused).update(
            autoscaling_paused=paused
        ):
            transitions.request_reconcile(deployment.pk)
            trail.record(actor, "paused autoscaling of" if paused else "resumed autoscaling of", deployment)
            transitions.announce(deployment)


def replica_log(deployment: Deployment, replica: str, *, tail: int = 200) -> tuple[str, ...]:
    """Asks the target now. Raises NotFound or Unreachable."""
    try:
        if is_read_only(deployment):
            return handover.logs(deployment, replica=replica, tail=tail)
        return targets.of(deployment.target).logs(deployment.key, replica=replica, tail=tail)
    except NotFound as error:
        raise NotFound(
            "no_such_replica",
            f"“{deployment.name}” has no such replica.",
            "It may have been replaced or taken away; look at the replicas there are now.",
        ) from error


def set_replicas(deployment: Deployment, *, replicas: int) -> bool:
    """The autoscaler's and `scale`'s one write, guarded by the size it was decided from."""
    with transaction.atomic():
        moved = Deployment.objects.filter(
            pk=deployment.pk, replicas=deployment.replicas, removing=False
        ).update(replicas=replicas)
        if moved:
            transitions.request_reconcile(deployment.pk)
            transitions.announce(deployment)
    return bool(moved)


def start_load(actor: Actor, deployment: Deployment, *, rate_per_s: float, duration_s: int) -> Load:
    """Asks for bounded traffic on the endpoint, or changes what is being sent. `manage.py load` sends it."""
    actor.require(Role.ENGINEER)
    _refuse_load(deployment, rate_per_s=rate_per_s, duration_s=duration_s)
    fields = {
        "rate_per_s": rate_per_s,
        "until": Now() + timedelta(seconds=duration_s),
        "started_by": actor.user,
    }
    with transaction.atomic():
        goes_on = Load.objects.filter(deployment=deployment, until__gt=Now()).update(**fields)
        if not goes_on:
            Load.objects.update_or_create(deployment=deployment, defaults=fields | {"sent": 0, "failed": 0})
        verb = "changed the load on" if goes_on else "started a load on"
        trail.record(actor, verb, deployment, details={"rate_per_s": rate_per_s, "duration_s": duration_s})
        transitions.announce(deployment)
    return Load.objects.get(deployment=deployment)


def _refuse_load(deployment: Deployment, *, rate_per_s: float, duration_s: int) -> None:
    fields = {}
    if not 0 < rate_per_s <= MAX_LOAD_PER_S:
        fields["rate_per_s"] = [f"Use more than 0 and at most {MAX_LOAD_PER_S:g} requests per second."]
    if not 1 <= duration_s <= MAX_LOAD_S:
        fields["duration_s"] = [f"Use 1 to {MAX_LOAD_S:,} seconds."]
    if fields:
        told = " ".join(message for messages in fields.values() for message in messages)
        raise Unprocessable("load_out_of_bounds", "This load is outside its bounds.", told, fields=fields)
    if deployment.live_revision_id is None:
        raise Conflict("nothing_live", f"“{deployment.name}” has no live revision.", "Roll one out first.")
    if deployment.api_key_sha256:
        raise Conflict(
            "load_needs_key",
            f"“{deployment.name}” answers only with its API key, and Slipway keeps none.",
            "Send the load yourself with the key, or use a deployment without one.",
        )


def stop_load(actor: Actor, deployment: Deployment, *, in_s: float = 0) -> None:
    """Ends it now or in so many seconds, never later than it would have ended; what was sent stays to be read.

    Stopping twice is the same.
    """
    actor.require(Role.ENGINEER)
    end = Now() + timedelta(seconds=in_s)
    with transaction.atomic():
        if Load.objects.filter(deployment=deployment, until__gt=end).update(until=end):
            trail.record(actor, "stopped the load on", deployment)
            transitions.announce(deployment)


def keep_load(actor: Actor, deployment: Deployment, *, until: datetime) -> bool:
    """Takes a stop back that has not come yet: the load ends at `until` again. False if it is too late."""
    actor.require(Role.ENGINEER)
    latest = Now() + timedelta(seconds=MAX_LOAD_S)
    with transaction.atomic():
        kept = Load.objects.filter(deployment=deployment, until__gt=Now(), until__lt=until).update(
            until=Least(Value(until), latest)
        )
        if kept:
            trail.record(actor, "kept the load on", deployment)
            transitions.announce(deployment)
    return bool(kept)


def remove_deployment(actor: Actor, deployment: Deployment) -> None:
    """Drains and removes the endpoint; the rows go when the target says that nothing is left."""
    actor.require(Role.ENGINEER)
    with transaction.atomic():
        if not Deployment.objects.filter(pk=deployment.pk, removing=False).update(
            removing=True, generation=F("generation") + 1
        ):
            return
        for rollout in deployment.rollouts.filter(state__in=list(ACTIVE)):
            transitions.move_rollout(
                rollout, to=RolloutState.CANCELLED, message="The deployment is being removed."
            )
        trail.record(actor, "removed", deployment)
        transitions.announce(deployment)
        transitions.request_reconcile(deployment.pk)
