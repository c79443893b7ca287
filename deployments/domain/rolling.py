"""How many replicas each revision should have next, so that a rolling update never drops below its floor.

The arithmetic of the Kubernetes Deployment controller (rolling.go): surge up as far as the ceiling allows,
take down only what readiness has paid for. Level-triggered: it looks at what is, never at what was done.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.domain.spec import RolloutPolicy


@dataclass(frozen=True, kw_only=True)
class Count:
    """Of one revision: replicas asked for, and replicas ready to serve.

    `present` are those that exist in any state, draining ones too: who may not start beside them waits for 0.
    """

    asked: int
    ready: int
    present: int = 0


def next_counts(
    *, to: int, wanted: int, counts: Mapping[int, Count], policy: RolloutPolicy
) -> dict[int, int]:
    """Replicas to ask for, by revision, on the way to `wanted` replicas of revision `to`.

    Never above wanted + max_surge in all; never takes ready replicas below wanted - max_unavailable.
    Repeating it without a change in readiness changes nothing.
    """
    new = counts.get(to, Count(asked=0, ready=0))
    old = {revision: count.asked for revision, count in counts.items() if revision != to and count.asked}
    total = new.asked + sum(old.values())
    if not old:
        return {to: wanted}
    room = max(0, wanted + policy.max_surge - total)
    target = min(max(new.asked, min(wanted, new.asked + room)), wanted)
    floor = max(0, wanted - policy.max_unavailable)
    not_ready_yet = max(0, target - min(new.ready, target))
    spare = total - new.asked + target - floor - not_ready_yet
    spare_ready = sum(count.ready for count in counts.values()) - floor
    kept: dict[int, int] = {}
    for revision in sorted(old, key=lambda revision: (counts[revision].ready > 0, revision)):
        idle = max(0, old[revision] - counts[revision].ready)
        gone = max(0, min(spare, old[revision], idle + max(0, spare_ready)))
        spare -= gone
        spare_ready -= max(0, gone - idle)
        kept[revision] = old[revision] - gone
    return {to: target} | kept


def finished(*, to: int, wanted: int, counts: Mapping[int, Count]) -> bool:
    """Whether all that is asked for is revision `to`, in full number and ready."""
    new = counts.get(to, Count(asked=0, ready=0))
    old = sum(count.asked for revision, count in counts.items() if revision != to)
    return old == 0 and new.asked == wanted and new.ready >= wanted
