"""A Deployment of a cluster that others made and that was imported: what it was, and how far it was taken over.

Taking over moves callers, not pods: our own replicas start beside the others, then the Services that led there lead
to ours, then the others have no replicas any more. Each step can be taken back, because nothing is deleted. Refused:
writing our template over theirs, which would mix both servers behind one port and leave nothing to go back to.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from deployments.domain.plan import Change, Finding
from deployments.domain.wire import Document


class Stage(StrEnum):
    READ_ONLY = "read_only"
    """It is looked at, and nothing of it is written."""
    DIVERTING = "diverting"
    """Our replicas serve; the Services that lead to it are to lead to them."""
    DRAINING = "draining"
    """They do, and its own replicas end what they had begun."""
    TAKEN = "taken"
    """It has no replicas."""
    RETURNING = "returning"
    """Its replicas are to come back, and then its Services."""
    LEAVING = "leaving"
    """Its Services lead to it again, and ours end what they had begun."""


EDGES: dict[str, frozenset[str]] = {
    Stage.READ_ONLY: frozenset({Stage.DIVERTING}),
    Stage.DIVERTING: frozenset({Stage.DRAINING, Stage.RETURNING}),
    Stage.DRAINING: frozenset({Stage.TAKEN, Stage.RETURNING}),
    Stage.TAKEN: frozenset({Stage.RETURNING}),
    Stage.RETURNING: frozenset({Stage.LEAVING, Stage.TAKEN}),
    Stage.LEAVING: frozenset({Stage.READ_ONLY}),
}
OURS = (Stage.DIVERTING, Stage.DRAINING, Stage.TAKEN)
"""Where callers are led to our replicas, and can be led back."""


@dataclass(frozen=True, kw_only=True)
class OriginService(Document):
    """A Service that led to it, as it was then; `ports` are those of its spec."""

    name: str
    selector: dict[str, str]
    ports: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Origin(Document):
    """`uid` tells it from another one of that name; `replicas` is the size that it is given back with, and `services`
    are noted before the first of them is led elsewhere. `left_behind` is what no revision can say of it, in
    sentences."""

    name: str
    uid: str
    replicas: int
    services: tuple[OriginService, ...] = ()
    left_behind: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Other(Document):
    """A Deployment of the namespace that is not Slipway's, as a list shows it. `scaled_by` is its autoscaler's kind,
    name and bounds, and `kept_by` the tool that would take changes back."""

    name: str
    images: tuple[str, ...]
    replicas: int
    ready: int
    services: tuple[str, ...]
    scaled_by: str
    kept_by: str


@dataclass(frozen=True, kw_only=True)
class Reading(Document):
    """A Deployment as a revision says it: `spec` is a part of a revision's, without its variant, and `bounds` are those
    of its autoscaler in the names of autoscaling/v2; empty where nobody scales it."""

    other: Other
    origin: Origin
    spec: dict[str, Any]
    bounds: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Handover(Document):
    """What taking over would change of objects that are not ours; `digest` names the state that this was said of."""

    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]
    digest: str
