"""Who follows a cluster in tests, who writes to it meanwhile, and what befalls the events between them."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from controlplane.core.errors import SlipwayError
from deployments.targets.kubernetes.api import Api, Listed, Object
from deployments.targets.kubernetes.following import Followed
from deployments.targets.kubernetes.kinds import CONFIG_MAP, HPA, SERVICE, Kind
from deployments.targets.kubernetes.target import MINE
from deployments.targets.port import Unreachable
from tests.deployments.targets.kubernetes.fake import RunningFake

NAMESPACE, LABELS = "ml", {"app.kubernetes.io/managed-by": "slipway"}
KINDS = (CONFIG_MAP, SERVICE, HPA)
WITHIN_S = 30
PULSE_S = 0.5


class Ears(Api):
    """Counts what is asked of the cluster."""

    lists = watches = 0

    def list(self, kind: Kind, namespace: str | None, *, labels: str = "") -> Listed:
        self.lists += 1
        return super().list(kind, namespace, labels=labels)

    def watch(self, *args: Any, **how: Any) -> Iterator[tuple[str, Object]]:
        self.watches += 1
        return super().watch(*args, **how)


@dataclass(kw_only=True)
class Follow(Followed):
    """`told` is what `changed` was called with, `waits` how long it wanted to rest, `losses` how often it asked whether
    the cluster is there and had no answer."""

    api: Ears
    told: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    losses: int = 0
    moved: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.changed = self._noted

    def _noted(self, one: Object) -> None:
        with self.moved:
            self.told.append(one["metadata"]["name"])
            self.moved.notify_all()

    def _heard(self, away: SlipwayError | None) -> None:
        super()._heard(away)
        self.losses += away is not None

    def _rest(self, wait_s: float, returns: int) -> None:
        self.waits.append(wait_s)
        super()._rest(wait_s, returns)

    def until(self, holds: Callable[[], bool], why: str = "") -> None:
        """Wakes with each change; what changes no object (an outage) is looked at between."""
        end = time.monotonic() + WITHIN_S
        with self.moved:
            while not holds():
                assert time.monotonic() < end, why or f"told {self.told[-20:]}, waited {self.waits[-20:]}"
                self.moved.wait(0.02)

    def equals_list(self) -> bool:
        try:
            return all(versions(self.items(kind)) == self.listed(kind) for kind in self.kinds)
        except Unreachable:
            return False

    def listed(self, kind: Kind) -> dict[str, str]:
        return versions(Api(self.api.connection).list(kind, self.namespace, labels=self.labels).items)

    def is_away(self) -> bool:
        try:
            self.items(next(iter(self.kinds)))
        except Unreachable:
            return True
        return False


def versions(items: list[Object]) -> dict[str, str]:
    return {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in items}


class Hands:
    """Writes to the fake as others do."""

    def __init__(self, fake: RunningFake) -> None:
        self.fake = fake
        self.count = 0

    def put(self, name: str, kind: Kind = CONFIG_MAP) -> None:
        self.count += 1
        metadata = {"name": name, "namespace": NAMESPACE, "labels": LABELS}
        one = {"kind": kind.kind, "metadata": metadata, "data": {"n": str(self.count)}}
        self.fake.call(lambda: self.fake.cluster.put(kind.plural, one))

    def delete(self, name: str, kind: Kind = CONFIG_MAP) -> None:
        key = (kind.plural, NAMESPACE, name)
        self.fake.call(lambda: self.fake.cluster.objects.get(key) and self.fake.cluster._delete(key))

    def disturb(self, by: Callable[[Object], list[Object]]) -> None:
        self.fake.call(lambda: setattr(self.fake.cluster, "disturb", by))


def following_of(fake: RunningFake, *, starts: bool = True, **how: Any) -> Follow:
    made = Follow(
        api=Ears(fake.connection), namespace=NAMESPACE, labels=MINE, kinds=KINDS, pulse_s=PULSE_S, **how
    )
    if starts:
        made.start()
    return made


class Disturbance:
    """What happens to events on their way: by kind, because each kind has a line of its own."""

    def __init__(self, chance: random.Random, *, ways: tuple[str, ...]) -> None:
        self.chance = chance
        self.ways = ways
        self.held: dict[str, Object] = {}

    def __call__(self, event: Object) -> list[Object]:
        kind = event["object"].get("kind", "")
        match self.chance.choice(self.ways):
            case "lost":
                return []
            case "twice":
                said = [event, event]
            case "late" if kind not in self.held:
                self.held[kind] = event
                return []
            case _:
                said = [event]
        late = self.held.pop(kind, None)
        return [*said, late] if late is not None else said


def outage(follow: Follow, hands: Hands, way: str) -> None:
    """Until it is noticed: the one before it may not be over yet for who follows."""
    hands.fake.call(lambda: hands.fake.cluster.muted.update(hands.fake.cluster.lines))
    losses = follow.losses
    with getattr(hands.fake, way)():
        follow.until(lambda: follow.losses > losses)
