"""The port through which everything that runs replicas is spoken to, and the errors it answers with.

A target takes whole wishes (`DesiredDeployment`) and makes them so, level-triggered; it answers with whole
states. It never writes the database and never sees a request. The generation is the fence: a wish that is
older than the one a target has is refused, whoever brings it. Refused: `start_replica` and `stop_replica`; a
caller that dies between two such calls leaves a state nobody asked for.

    SlipwayError
     +- Unavailable
     |   +- Unreachable       the target does not answer; what it runs keeps running
     +- Conflict
     |   +- StaleGeneration   the target has a newer wish, or another one of the same generation
     +- PreconditionFailed
         +- StaleLive         what is live has moved since the plan was made
"""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from controlplane.core.errors import Conflict, PreconditionFailed, Unavailable
from deployments.domain.drift import Drift
from deployments.domain.origin import Handover, Origin, OriginService, Other, Reading
from deployments.domain.plan import Finding, Plan
from deployments.domain.workload import DesiredDeployment, ReplicaStatus, TargetEvent, TargetStatus


class Unreachable(Unavailable):
    """The target does not answer. What it runs keeps running."""


class StaleGeneration(Conflict):
    """The target has a newer wish than this one, or another one of the same generation."""


class StaleLive(PreconditionFailed):
    """What is live has moved since the plan was made."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Way:
    """By which the metrics pages of replicas are read that are not at their own addresses for us. A target keeps one.

    `page` gives a replica's URL. `headers` are asked for with every request: a token may be another one by then.
    """

    page: Callable[[ReplicaStatus], str]
    headers: Callable[[], Mapping[str, str]]
    context: ssl.SSLContext | None = None
    server_name: str = ""


class Target(Protocol):
    """Where replicas run. Every method may raise Unreachable (Kubernetes: the API server is away)."""

    @property
    def rolls(self) -> bool:
        """Whether it moves from one revision to the next, and scales, by itself once it knows the wish."""
        ...

    @property
    def way(self) -> Way | None:
        """To the metrics pages of its replicas; None where they are asked at their own addresses."""
        ...

    def preflight(self, desired: DesiredDeployment, *, live: DesiredDeployment | None) -> tuple[Finding, ...]:
        """What would stand in the way, given what is live. Never raises Unreachable: that is a finding."""
        ...

    def plan(self, desired: DesiredDeployment) -> Plan:
        """The field-level diff of the wish against the one that is live. Changes nothing."""
        ...

    def apply(
        self,
        desired: DesiredDeployment,
        *,
        expected_live_digest: str | None = None,
        take_over: Callable[[str], None] | None = None,
    ) -> None:
        """Takes up the wish and returns before it is so. Applying the same wish again changes nothing, but that what
        somebody else took away comes back.

        Where others may write the same fields, what they have is left to them (Conflict) unless `take_over` is given,
        which is told what was taken from whom.

        Raises StaleGeneration for an older generation, or for another wish of the same generation; StaleLive
        when `expected_live_digest` (of a Plan) is given and the live wish is another one; Conflict when the
        path belongs to another deployment or a live revision is given another content.
        """
        ...

    def observe(self, key: str) -> TargetStatus:
        """What runs now. Raises NotFound where nothing of this key is wished for or still running."""
        ...

    def observe_all(self) -> tuple[TargetStatus, ...]:
        """What runs now, of every deployment, sorted by key."""
        ...

    def desired(self, key: str) -> DesiredDeployment | None:
        """The wish that the target has; None where it has none."""
        ...

    def scale(self, key: str, *, revision: int, replicas: int, generation: int) -> None:
        """Changes one revision's number of replicas in the live wish, as one step, under a new generation.

        Raises NotFound for an unknown key or revision, StaleGeneration as `apply` does.
        """
        ...

    def logs(self, key: str, *, replica: str, tail: int = 200) -> tuple[str, ...]:
        """The last lines of the replica's process, oldest first. Raises NotFound for an unknown replica."""
        ...

    def events(self, key: str | None = None, *, after: int = 0, wait_s: float = 0) -> tuple[TargetEvent, ...]:
        """What happened after the event `after`, oldest first, of one key or of all.

        With `wait_s` a target that can waits so long (at most 8 s) for a first event.
        """
        ...

    def follow(self, changed: Callable[[str], None]) -> None:
        """Told by whoever looks all the time. A target that can keeps what it runs up to date by itself from then on,
        so that `observe_all` costs nothing, and calls `changed` with the key of what moved. Repeatable."""
        ...

    def delete(self, key: str) -> None:
        """Takes the endpoint away and drains its replicas; returns before they are gone. Repeatable.

        The fence outlives the deployment: a wish of a generation that was already seen stays refused.
        """
        ...


class Origins(Protocol):
    """The Deployments that others made on a shared target. What writes to one names the deployment `key` that takes it
    over, and raises StaleGeneration for an older generation of that; all raise NotFound where the origin is gone."""

    def all(self) -> tuple[Other, ...]:
        """Sorted as the target lists them."""
        ...

    def read(self, name: str) -> Reading:
        """As a revision would say it."""
        ...

    def observe(self, origin: Origin, *, key: str) -> TargetStatus:
        """What it runs, with revision 0, as the status of `key`."""
        ...

    def logs(self, origin: Origin, *, replica: str, tail: int = 200) -> tuple[str, ...]: ...

    def plan(self, origin: Origin, *, key: str) -> Handover:
        """What taking it over would change of it and of the Services that lead to it. Changes nothing."""
        ...

    def services(self, origin: Origin) -> tuple[OriginService, ...]:
        """Those that lead to it, as they are."""
        ...

    def divert(self, origin: Origin, *, key: str, generation: int) -> None:
        """Leads the origin's noted Services to where the own address of `key` leads now. Repeatable."""
        ...

    def restore(self, origin: Origin, *, key: str, generation: int) -> None:
        """Leads them back. Repeatable."""
        ...

    def resize(self, origin: Origin, replicas: int, *, key: str, generation: int) -> None: ...


@runtime_checkable
class SharedTarget(Target, Protocol):
    """One whose objects others write too: people with kubectl, other controllers."""

    @property
    def origins(self) -> Origins: ...

    def drift(self, key: str) -> tuple[Drift, ...]:
        """What others changed or deleted of what was applied; what is secret only by its digest."""
        ...

    def put_back(self, key: str) -> None:
        """Writes what was wished for over what others changed. Raises NotFound where nothing was applied."""
        ...
