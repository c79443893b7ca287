"""The latest signals in Redis, for whoever answers an autoscaler or paints a page.

A reader must know how old what it reads is without trusting the writer's clock: every write sets the same
time to live, so what is left of it tells the age. A collector that stops is therefore seen as stale after
three periods, and after 60 s as nothing at all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from deployments.telemetry.sheet import SignalLabels, pack, unpack
from deployments.telemetry.signals import HOLD_S, DeploymentSignals

_PREFIX: Final = "slipway:signals:"
_SHEET: Final = "slipway:signal-sheet"
SHEET_WRITTEN: Final = "slipway:signal-sheet-written"
"""The channel on which every write of the sheet is told; the message says nothing."""
_LIFE_MS: Final = int(HOLD_S * 1000)


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What the last write said of all deployments with labels: labels to signals, both as JSON."""

    age_s: float
    lines: Mapping[bytes, bytes]


async def write_signals(
    redis: Redis, signals: Iterable[DeploymentSignals], *, labels: Mapping[str, SignalLabels] | None = None
) -> None:
    """Replaces the snapshots of these deployments. One round trip. Raises redis.RedisError.

    With `labels` (by the deployment's key) these are all deployments there are, and the sheet is replaced too: by an
    empty one where none has labels. None leaves the sheet as it is, because it is not known who there is.
    """
    bodies = {one.deployment: one.to_json() for one in signals}
    async with redis.pipeline(transaction=False) as pipeline:
        for key, body in bodies.items():
            pipeline.set(_PREFIX + key, body, px=_LIFE_MS)
        if labels is not None:
            pipeline.set(_SHEET, pack(bodies, labels), px=_LIFE_MS)
            pipeline.publish(SHEET_WRITTEN, b"")
        await pipeline.execute()


async def read_signals(redis: Redis, deployment: str) -> DeploymentSignals | None:
    """The signals with their age as of now; None when nothing was written for 60 s. Raises redis.RedisError.

    The client must not decode responses.
    """
    body, age_s = await _read(redis, _PREFIX + deployment)
    return None if body is None else DeploymentSignals.from_json(body).aged(age_s)


async def read_sheet(redis: Redis) -> Sheet | None:
    """All signals with labels, as they were written `age_s` ago; None when nothing was written for 60 s. Raises
    redis.RedisError.

    The client must not decode responses.
    """
    body, age_s = await _read(redis, _SHEET)
    return None if body is None else Sheet(age_s=age_s, lines=unpack(body))


async def _read(redis: Redis, key: str) -> tuple[bytes | None, float]:
    """What was written, and how many seconds ago."""
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.get(key)
        pipeline.pttl(key)
        body, left_ms = await pipeline.execute()
    return (None, 0.0) if body is None or left_ms < 0 else (body, (_LIFE_MS - left_ms) / 1000)
