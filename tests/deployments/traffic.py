"""What the collector would have counted of a rollout's revisions, and a step that began some time ago."""

from datetime import timedelta

import numpy as np

from deployments.domain.sketch import Sketch
from deployments.models import Rollout
from deployments.telemetry import store
from deployments.telemetry.rollup import Window, WindowKey
from tests.deployments.world import World

ENOUGH = 20_000


def traffic(world: World, rollout: Rollout, revision: int, *, p50_ms: float, errors: int = 0) -> None:
    """What the collector would have counted of one revision since the step began."""
    rollout.refresh_from_db()
    since = rollout.step["since"]
    assert since is not None
    moment = Rollout.objects.get(pk=rollout.pk).created_at.timestamp()
    random = np.random.default_rng(revision)
    latency = Sketch.from_values(p50_ms / 1000 * np.exp(random.normal(0, 0.4, ENOUGH)))
    key = WindowKey(
        ts=int(moment) // 10 * 10 - 10, resolution_s=10, deployment=world.row.key, revision=revision
    )
    window = Window(
        key=key,
        observed_s=10,
        requests=ENOUGH,
        errors={"500": errors} if errors else {},
        latency=latency.to_bytes(),
    )
    store.write([window], living=[world.row.pk])


def judged(world: World, rollout: Rollout) -> None:
    """As if the step had begun a minute ago, in windows that have closed since."""
    rollout.refresh_from_db()
    step = rollout.step | {"since": (rollout.created_at - timedelta(seconds=30)).isoformat()}
    Rollout.objects.filter(pk=rollout.pk).update(step=step)
