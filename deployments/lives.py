"""Keeps when each replica passed the phases of its start, so that they outlive it."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from controlplane.core.errors import SlipwayError
from deployments import targets
from deployments.domain import lives
from deployments.domain.workload import TargetStatus
from deployments.models import Deployment, ReplicaLife

type Known = dict[tuple[str, datetime], dict[str, datetime]]


@dataclass(kw_only=True)
class Lives:
    """Remembers what is written, so that a look at what has not moved costs nothing. One per collector."""

    _known: dict[int, Known] = field(default_factory=dict)

    def keep(self, row: Deployment, seen: TargetStatus | None) -> None:
        """The first moment of a phase is kept: what flaps later has started once."""
        known = self._known.get(row.pk)
        if known is None:
            known = self._known[row.pk] = _read(row)
        now = {(one.name, lives.began(one)): one for one in (seen.replicas if seen else ())}
        found = {key: lives.phases(one) | known.get(key, {}) for key, one in now.items()}
        moved = {key for key, phases in found.items() if known.get(key) != phases}
        if moved and row.target.is_cluster:
            _add_pulled(row, {key: found[key] for key in moved})
        rows = [
            ReplicaLife(
                deployment=row,
                name=name,
                began_at=began_at,
                revision=now[name, began_at].revision,
                node=now[name, began_at].node,
                phases={phase: at.isoformat() for phase, at in found[name, began_at].items()},
            )
            for name, began_at in sorted(moved)
        ]
        if rows:
            ReplicaLife.objects.bulk_create(
                rows,
                update_conflicts=True,
                unique_fields=["deployment", "name", "began_at"],
                update_fields=["phases", "node"],
            )
        for name, began_at in known.keys() - now.keys():
            ReplicaLife.objects.filter(deployment=row, name=name, began_at=began_at, gone_at=None).update(
                gone_at=seen.observed_at if seen else row.observed_at
            )
        self._known[row.pk] = found


def _read(row: Deployment) -> Known:
    found = ReplicaLife.objects.filter(deployment=row, gone_at=None)
    return {(one.name, one.began_at): moments(one.phases) for one in found}


def moments(document: dict[str, Any]) -> dict[str, datetime]:
    return {name: datetime.fromisoformat(text) for name, text in document.items()}


def _add_pulled(row: Deployment, moved: Known) -> None:
    """Only the cluster's events tell it; without them it stays unknown."""
    with suppress(SlipwayError):
        pulled = {
            one.replica: one.at for one in targets.of(row.target).events(row.key) if one.kind == "pulled"
        }
        for (name, _), phases in moved.items():
            if name in pulled:
                phases.setdefault("pulled", pulled[name])
