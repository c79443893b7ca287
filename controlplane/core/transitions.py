"""The only way a state changes: a guarded UPDATE whose row count is looked at.

The edges of a machine are a table in its app's `domain`. `move` writes state, changes and, through
`record`, the event row in one transaction; a zero row count means that somebody else moved first, and
nothing is written. Refused: `instance.save()`, signals, and reading the state before writing it.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from typing import Any

from django.db import transaction
from django.db.models import Model, QuerySet

Edges = Mapping[str, frozenset[str]]
"""State -> the states it may move to."""


def sources(edges: Edges, target: str) -> frozenset[str]:
    """The states from which `target` may be reached."""
    return frozenset(state for state, targets in edges.items() if target in targets)


def move[Row: Model](
    rows: QuerySet[Row],
    *,
    edges: Edges,
    to: str,
    changes: Mapping[str, Any] | None = None,
    only_from: Collection[str] | None = None,
    record: Callable[[], object] | None = None,
) -> bool:
    """Moves the rows (one, filtered by id and owner or fence) to `to` if an edge leads there.

    Returns whether a row moved. `record` runs in the same transaction and only if one did.
    Cost: one UPDATE, plus what `record` does.
    """
    allowed = sources(edges, to)
    if only_from is not None:
        allowed &= frozenset(only_from)
    with transaction.atomic() if record is not None else nullcontext():
        moved = rows.filter(state__in=allowed).update(state=to, **(changes or {}))
        if moved and record is not None:
            record()
    return bool(moved)
