"""The latest signals in Redis, for whoever answers an autoscaler or paints a page.

A reader must know how old what it reads is without trusting the writer's clock: every write sets the same
time to live, so what is left of it tells the age. A collector that stops is therefore seen as stale after
three periods, and after 60 s as nothing at all.
"""

from collections.abc import Iterable
from typing import Final

from redis.asyncio import Redis

from deployments.telemetry.signals import HOLD_S, DeploymentSignals

_PREFIX: Final = "slipway:signals:"
_LIFE_MS: Final = int(HOLD_S * 1000)


async def write_signals(redis: Redis, signals: Iterable[DeploymentSignals]) -> None:
    """Replaces the snapshots of these deployments. One round trip. Raises redis.RedisError."""
    async with redis.pipeline(transaction=False) as pipeline:
        for one in signals:
            pipeline.set(_PREFIX + one.deployment, one.to_json(), px=_LIFE_MS)
        await pipeline.execute()


async def read_signals(redis: Redis, deployment: str) -> DeploymentSignals | None:
    """The signals with their age as of now; None when nothing was written for 60 s. Raises redis.RedisError.

    The client must not decode responses.
    """
    key = _PREFIX + deployment
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.get(key)
        pipeline.pttl(key)
        body, left_ms = await pipeline.execute()
    if body is None or left_ms < 0:
        return None
    return DeploymentSignals.from_json(body).aged((_LIFE_MS - left_ms) / 1000)
