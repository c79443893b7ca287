"""Versions by reference: the verbs on imports, and every change of an import's state.

The row is the queue. Whoever claims it takes a lease and a fence that only grows, so an import is in one hand, and what
an older hand still does takes no effect. The version and the end of its import are one transaction.
"""

from datetime import timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from controlplane.accounts import audit
from controlplane.accounts.access import Actor
from controlplane.accounts.models import Role
from controlplane.core import bus, transitions
from controlplane.core.clock import database_now
from controlplane.core.errors import Conflict, SlipwayError, TooMany, Unprocessable
from controlplane.core.names import free_text
from controlplane.core.rows import locked
from controlplane.registry import services, sources
from controlplane.registry.models import Import, Model, Version
from controlplane.registry.sources.values import Remote

log = structlog.get_logger(__name__)

State = Import.State
EDGES: transitions.Edges = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.FAILED}),
    # queued: given back, or tried again later; running: claimed when the lease had run out
    State.RUNNING: frozenset({State.QUEUED, State.RUNNING, State.SUCCEEDED, State.FAILED, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}
ACTIVE = (State.QUEUED, State.RUNNING)
MAX_ACTIVE = 20
"""Of one team."""
MAX_ATTEMPTS = 3
RETRY_AFTER_S = 20


class Lost(Exception):
    """The import is over, or in another hand. Stop, and write nothing more."""


def remote(source: str) -> Remote:
    """Raises Unprocessable where the operator has switched it off."""
    environment = settings.ENVIRONMENT
    found = {
        "huggingface": Remote(
            name="Hugging Face",
            endpoint=environment.hf_endpoint,
            token=environment.hf_token,
            hosts=environment.import_hosts,
            settings=("SLIPWAY_HF_ENDPOINT", "SLIPWAY_HF_TOKEN"),
        ),
        "mlflow": Remote(
            name="MLflow",
            endpoint=environment.mlflow_uri,
            token=environment.mlflow_token,
            user=environment.mlflow_user,
            hosts=environment.import_hosts,
            settings=("SLIPWAY_MLFLOW_TRACKING_URI", "SLIPWAY_MLFLOW_TOKEN"),
        ),
    }[source]
    if not found.endpoint:
        why = f"No address of {found.name} is set."
        raise Unprocessable(
            "source_not_set",
            f"Nothing is imported from {found.name} here.",
            f"{why} An operator sets {found.settings[0]}.",
            fields={"reference": [f"{why} An operator sets {found.settings[0]}."]},
        )
    return found


def start(actor: Actor, model: Model, *, reference: str) -> tuple[Import, bool]:
    """Queues the import; returns it and whether it is new: while one of the same reference is under way, that is the
    answer. Raises InvalidInput, Unprocessable for a source that is switched off, and TooMany."""
    actor.require(Role.ENGINEER)
    reference = free_text(reference, field="reference", most=sources.MAX_REFERENCE)
    remote(sources.parse(reference).source)
    with transaction.atomic():
        locked(model)
        known = Import.objects.filter(model=model, reference=reference, state__in=ACTIVE).first()
        if known is not None:
            return known, False
        if Import.objects.in_team(actor.team).filter(state__in=ACTIVE).count() >= MAX_ACTIVE:
            raise TooMany(
                "too_many_imports",
                "Too many imports are under way.",
                f"At most {MAX_ACTIVE} of a team wait or run. Wait until one has ended, or cancel one.",
                retry_after_s=30,
            )
        row = Import.objects.create(
            model=model, reference=reference, run_after=database_now(), created_by=actor.user
        )
        _audit(actor, "began an import to", row)
        _announce(row)
    return row, True


def start_with_model(actor: Actor, *, name: str, description: str = "", reference: str) -> Import:
    """A model whose first version is fetched: the model stays where that fails. Raises as `register_model` and `start`
    do; then there is neither."""
    with transaction.atomic():
        model = services.register_model(actor, name=name, description=description)
        return start(actor, model, reference=reference)[0]


def cancel(actor: Actor, row: Import) -> str:
    """Ends it at once; who fetches it hears of it within seconds. Raises Conflict when it is over."""
    actor.require(Role.ENGINEER)
    with transaction.atomic():
        if not _move(Import.objects.filter(pk=row.pk), row, State.CANCELLED, message="Cancelled."):
            row.refresh_from_db(fields=["state"])
            raise Conflict(
                "import_is_over", f"The import is over: {row.state}.", "There is nothing to cancel."
            )
        _audit(actor, "cancelled an import to", row)
    return State.CANCELLED


def claim() -> Import | None:
    """The next due import, in this hand; None where there is none. One whose hands fell silent too often fails."""
    due = Q(state=State.QUEUED, run_after__lte=Now()) | Q(state=State.RUNNING, lease_until__lt=Now())
    with transaction.atomic():
        rows = Import.objects.select_for_update(skip_locked=True, no_key=True, of=("self",))
        row = rows.select_related("model__team", "created_by").filter(due).order_by("run_after", "id").first()
        if row is None:
            return None
        mine = Import.objects.filter(pk=row.pk)
        if row.attempt >= MAX_ATTEMPTS:
            _move(
                mine,
                row,
                State.FAILED,
                code="attempts_exhausted",
                message=f"It was begun {MAX_ATTEMPTS} times, and its process ended each time. The log says why.",
            )
            return None
        begun = {"attempt": F("attempt") + 1, "lease_until": Now() + lease(), "done_bytes": 0, "message": ""}
        transitions.move(mine, edges=EDGES, to=State.RUNNING, changes=begun | {"fence": F("fence") + 1})
        _announce(row)
        row.refresh_from_db(fields=["state", "fence", "attempt", "revision"])
        return row


def lease() -> timedelta:
    """Longer than a look at the bytes takes, in which nothing is heard of who holds the import."""
    return timedelta(seconds=settings.ENVIRONMENT.intake_wall_s + 120)


def held(row: Import) -> QuerySet[Import]:
    return Import.objects.filter(pk=row.pk, fence=row.fence, state=State.RUNNING)


def beat(row: Import, **known: int | str | None) -> None:
    """Renews the lease and writes what is known by now: `revision`, `done_bytes`, `total_bytes`. Raises Lost."""
    with transaction.atomic():
        if not held(row).update(lease_until=Now() + lease(), **known):
            raise Lost
        _announce(row)


def succeed(row: Import, version: Version) -> None:
    """Call inside the transaction that adds the version. Raises Lost, which undoes it."""
    if not _move(held(row), row, State.SUCCEEDED, version=version):
        raise Lost


def fail(row: Import, error: SlipwayError, *, again: bool = False) -> bool:
    """Ends it with the error's sentences, or lets it wait for another try where that may help. Returns whether it
    waits."""
    said = f"{error.title} {error.detail}".strip()
    if again and row.attempt < MAX_ATTEMPTS:
        wait_s = RETRY_AFTER_S * row.attempt
        return _back(row, wait_s=wait_s, message=f"{said} Trying again in {wait_s} s.")
    _move(held(row), row, State.FAILED, code=error.code, message=said)
    return False


def hand_back(row: Import) -> None:
    """Whoever fetches it stops: another one begins anew, and this try is not counted."""
    _back(row, wait_s=0, message="", attempt=F("attempt") - 1)


def _back(row: Import, *, wait_s: int, message: str, **changes: object) -> bool:
    changes |= {"run_after": Now() + timedelta(seconds=wait_s), "lease_until": None, "message": message}
    with transaction.atomic():
        moved = transitions.move(held(row), edges=EDGES, to=State.QUEUED, changes=changes)
        _announce(row)
    return moved


def _move(rows: QuerySet[Import], row: Import, to: State, **changes: object) -> bool:
    """To an end."""
    ended = {"finished_at": Now(), "lease_until": None, **changes}
    return transitions.move(rows, edges=EDGES, to=to, changes=ended, record=lambda: _announce(row))


def _announce(row: Import) -> None:
    bus.publish(f"model:{row.model_id}", team_id=row.model.team_id)


def _audit(actor: Actor, verb: str, row: Import) -> None:
    audit.record(
        actor,
        verb,
        object_type="model",
        object_id=row.model_id,
        object_name=row.model.name,
        object_url=row.model.get_absolute_url(),
        details={"reference": row.reference},
    )
