"""What an apply would change: a field-level diff of two documents, and the findings of a pre-flight.

The diff names fields as people do (`workloads.2.batching.max_batch_size`), so the page, the API and the audit
log show the same lines. Refused: a text diff of two JSON files, which moves when a key moves.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from deployments.domain.wire import Document


class Op(StrEnum):
    ADD = "add"
    CHANGE = "change"
    REMOVE = "remove"


@dataclass(frozen=True, kw_only=True)
class Change(Document):
    """One field that differs; `before` is None for an addition, `after` for a removal."""

    path: str
    op: Op
    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True)
class Counts(Document):
    add: int
    change: int
    remove: int


@dataclass(frozen=True, kw_only=True)
class ObjectDiff(Document):
    """What changes in one object of a cluster; the changes' paths are those inside of it."""

    kind: str
    name: str
    changes: tuple[Change, ...]

    @property
    def counts(self) -> Counts:
        return counts(self.changes)


@dataclass(frozen=True, kw_only=True)
class Plan(Document):
    """The diff against what is live, and the live state it was made against.

    An apply that carries `live_digest` is refused when the live state has moved since.
    Where nothing is live, `live_generation` is None and `live_digest` is empty. `manifests` are the objects that a
    cluster is given, without what is secret; there, the first part of a change's path is “kind name”.
    """

    diff: tuple[Change, ...]
    live_generation: int | None
    live_digest: str
    manifests: tuple[dict[str, Any], ...] = ()

    @property
    def counts(self) -> Counts:
        return counts(self.diff)

    @property
    def objects(self) -> tuple[ObjectDiff, ...]:
        """The diff of a cluster's objects, object by object; none elsewhere."""
        return by_object(self.diff) if self.manifests else ()


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Finding(Document):
    """One result of a pre-flight: what was seen, and what the reader can do about it."""

    severity: Severity
    code: str
    title: str
    evidence: str
    action: str

    @classmethod
    def error(cls, code: str, title: str, evidence: str, action: str) -> Self:
        """Stands in the way."""
        return cls(severity=Severity.ERROR, code=code, title=title, evidence=evidence, action=action)

    @classmethod
    def warning(cls, code: str, title: str, evidence: str, action: str) -> Self:
        return cls(severity=Severity.WARNING, code=code, title=title, evidence=evidence, action=action)

    @classmethod
    def info(cls, code: str, title: str, evidence: str, action: str) -> Self:
        return cls(severity=Severity.INFO, code=code, title=title, evidence=evidence, action=action)


def by_object(changes: Sequence[Change]) -> tuple[ObjectDiff, ...]:
    """Of changes whose path begins with “kind name”."""
    found: dict[str, list[Change]] = {}
    for change in changes:
        one, _, path = change.path.partition(".")
        found.setdefault(one, []).append(replace(change, path=path))
    split = ((*one.partition(" ")[::2], tuple(inside)) for one, inside in found.items())
    return tuple(ObjectDiff(kind=kind, name=name, changes=inside) for kind, name, inside in split)


def canonical(document: Any) -> str:
    """The one spelling of a JSON document: sorted names, no spaces, 5 for 5.0 (JSON has one kind of number)."""
    return json.dumps(_one_spelling(document), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(document: Any) -> str:
    """SHA-256 (hex) of the canonical JSON."""
    return hashlib.sha256(canonical(document).encode("utf-8", "surrogatepass")).hexdigest()


def diff(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> tuple[Change, ...]:
    """The changes that turn `before` into `after`, sorted by path.

    Objects are compared field by field. Lists are values, except lists of workloads (objects that each carry
    a `revision`), which are compared by revision: their order means nothing. Booleans differ from numbers.
    """
    return tuple(sorted(_changes("", before or {}, after), key=lambda change: change.path))


def counts(changes: Sequence[Change]) -> Counts:
    number = {op: sum(change.op is op for change in changes) for op in Op}
    return Counts(add=number[Op.ADD], change=number[Op.CHANGE], remove=number[Op.REMOVE])


def _one_spelling(value: Any) -> Any:
    match value:
        case Mapping():
            return {name: _one_spelling(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_one_spelling(inner) for inner in value]
        case float() if value.is_integer():
            return int(value)
    return value


def _changes(path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        inner = f"{path}.{name}" if path else name
        if name not in before:
            yield from _leaves(inner, after[name], Op.ADD)
        elif name not in after:
            yield from _leaves(inner, before[name], Op.REMOVE)
        else:
            yield from _differences(inner, before[name], after[name])


def _differences(path: str, before: Any, after: Any) -> Iterator[Change]:
    old, new = _keyed(before), _keyed(after)
    if old is not None and new is not None:
        yield from _changes(path, old, new)
    elif canonical(before) != canonical(after):
        yield Change(path=path, op=Op.CHANGE, before=before, after=after)


def _leaves(path: str, value: Any, op: Op) -> Iterator[Change]:
    fields = _keyed(value)
    if fields:
        for name in sorted(fields):
            yield from _leaves(f"{path}.{name}", fields[name], op)
    else:
        before, after = (None, value) if op is Op.ADD else (value, None)
        yield Change(path=path, op=op, before=before, after=after)


def _keyed(value: Any) -> Mapping[str, Any] | None:
    """The value as named fields, or None where it is a plain value."""
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, list | tuple) or not value:
        return None
    named = {str(one["revision"]): one for one in value if isinstance(one, Mapping) and "revision" in one}
    return named if len(named) == len(value) else None
