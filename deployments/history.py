"""What happened to a deployment lately: what people did, how rollouts ended, when its size was changed and why.

Refused: a table of events of its own. Each of the three is kept already, with more than a line here can say.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.urls import reverse

from controlplane.accounts.models import AuditEvent
from controlplane.core.vocabulary import Tone, word_of
from deployments import selectors
from deployments.models import Deployment


@dataclass(frozen=True, kw_only=True)
class Event:
    """`text` is a sentence, or goes on from `who`; `url` leads to more, if there is more."""

    at: datetime
    text: str
    icon: str
    tone: Tone
    who: str = ""
    url: str = ""


def history(deployment: Deployment, *, limit: int = 10) -> list[Event]:
    """The last events, newest first. Three index scans of `limit` rows."""
    found = [*_acts(deployment, limit), *_ends(deployment, limit), *_sizes(deployment, limit)]
    return sorted(found, key=lambda event: event.at, reverse=True)[:limit]


def _acts(deployment: Deployment, limit: int) -> Iterator[Event]:
    rows = AuditEvent.objects.in_team(deployment.team_id)
    about = rows.filter(object_type="deployment", object_id=deployment.pk).select_related("user")
    for row in about[:limit]:
        rollout = row.details.get("rollout")
        yield Event(
            at=row.at,
            who=row.user.username if row.user else "Slipway",
            text=f"{row.verb} {row.object_name}{_with(row.details)}",
            icon="user",
            tone=Tone.UNKNOWN,
            url=_rollout_url(deployment, rollout) if rollout else "",
        )


def _with(details: Mapping[str, Any]) -> str:
    match details:
        case {"from": before, "to": after}:
            return f" from {before} to {after} replicas"
        case {"revision": number}:
            return f", revision {number}"
        case {"rate_per_s": rate}:
            return f", {rate:g} requests/s"
    return ""


def _ends(deployment: Deployment, limit: int) -> Iterator[Event]:
    ended = deployment.rollouts.filter(finished_at__isnull=False).select_related("to_revision")
    for row in ended.order_by("-pk")[:limit]:
        word = word_of(row.state)
        said = f"{row.get_kind_display()} to revision {row.to_revision.number}: {word.label.lower()}."
        assert row.finished_at is not None
        yield Event(
            at=row.finished_at,
            text=f"{said} {row.message}",
            icon=word.icon,
            tone=word.tone,
            url=_rollout_url(deployment, row.pk),
        )


def _rollout_url(deployment: Deployment, rollout: int) -> str:
    return reverse("deployments:rollout", args=[deployment.name, rollout])


def _sizes(deployment: Deployment, limit: int) -> Iterator[Event]:
    for row in selectors.decisions(deployment, changes_only=True)[:limit]:
        grew = row.desired_replicas > row.current_replicas
        yield Event(at=row.at, text=row.sentence, icon="up" if grew else "down", tone=Tone.PROGRESSING)
