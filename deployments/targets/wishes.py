"""The wishes a target has, and the fence in front of them: shared by every target that keeps its own.

Pure bookkeeping. `accept` says whether a wish may be taken up, `commit` takes it up; between the two a target
writes it to where it survives.
"""

from dataclasses import replace

from controlplane.core.errors import Conflict, NotFound
from deployments.domain.plan import Plan, diff, digest
from deployments.domain.workload import DesiredDeployment
from deployments.targets.port import StaleGeneration, StaleLive


class Wishes:
    def __init__(self, live: dict[str, DesiredDeployment], fences: dict[str, int]) -> None:
        self._live = live
        self._fences = fences

    def get(self, key: str) -> DesiredDeployment | None:
        return self._live.get(key)

    def keys(self) -> frozenset[str]:
        return frozenset(self._live)

    def generation(self, key: str) -> int:
        """The newest that was seen, also of a deployment that was deleted; -1 for an unknown key."""
        live = self._live.get(key)
        return live.generation if live is not None else self._fences.get(key, -1)

    def plan(self, wish: DesiredDeployment) -> Plan:
        return plan(wish, live=self._live.get(wish.key))

    def accept(self, wish: DesiredDeployment, *, expected_live_digest: str | None) -> bool:
        """False when it is in place already. Raises StaleGeneration, StaleLive or Conflict."""
        live = self._live.get(wish.key)
        if live == wish:
            return False
        newest = self.generation(wish.key)
        if wish.generation <= newest:
            raise StaleGeneration(
                "stale_generation",
                "A newer change of this deployment is already in place.",
                f"This one has generation {wish.generation}, the newest is {newest}. Read the deployment again.",
                extra={"live_generation": newest},
            )
        if expected_live_digest not in (None, _digest(live)):
            title = "What is live has changed since this plan was made."
            raise StaleLive("live_moved", title, "Plan again, and apply that plan.")
        for other in self._live.values():
            if other.path == wish.path and other.key != wish.key:
                raise Conflict("path_taken", f"The path {wish.path} belongs to deployment {other.key}.")
        return True

    def commit(self, wish: DesiredDeployment) -> None:
        self._live[wish.key] = wish

    def scaled(self, key: str, *, revision: int, replicas: int, generation: int) -> DesiredDeployment:
        """The live wish with another number of replicas; to be accepted. Raises NotFound."""
        live = self._live.get(key)
        if live is None or live.workload(revision) is None:
            raise NotFound("no_such_revision", f"Deployment {key} has no live revision {revision}.")
        workloads = tuple(
            replace(one, replicas=replicas) if one.revision == revision else one for one in live.workloads
        )
        return replace(live, workloads=workloads, generation=generation)

    def remove(self, key: str) -> DesiredDeployment | None:
        """Forgets the wish but not its generation. None when there was none."""
        live = self._live.pop(key, None)
        if live is not None:
            self._fences[key] = live.generation
        return live


def plan(wish: DesiredDeployment, *, live: DesiredDeployment | None) -> Plan:
    return Plan(
        diff=diff(live.to_json() if live is not None else None, wish.to_json()),
        live_generation=live.generation if live is not None else None,
        live_digest=_digest(live),
    )


def _digest(live: DesiredDeployment | None) -> str:
    return digest(live.to_json()) if live is not None else ""
