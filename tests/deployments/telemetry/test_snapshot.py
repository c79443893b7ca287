"""What was written to Redis is read with its age, or not at all."""

import os
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from deployments.telemetry.signals import DeploymentSignals, Signal, SignalError, SignalName
from deployments.telemetry.snapshot import read_signals, write_signals


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    async with Redis.from_url(os.environ["REDIS_URL"], socket_timeout=3) as client:
        await client.delete("slipway:signals:snap-1", "slipway:signals:snap-2")
        yield client
        await client.delete("slipway:signals:snap-1", "slipway:signals:snap-2")


def signals(deployment: str, depth: float) -> DeploymentSignals:
    one = Signal(value=depth, age_s=0.5, reporting=1, expected=1)
    return DeploymentSignals(
        deployment=deployment, at_wall=1000, period_s=2, signals=dict.fromkeys(SignalName, one)
    )


async def test_what_was_written_is_read_a_little_older(redis: Redis) -> None:
    await write_signals(redis, [signals("snap-1", 7), signals("snap-2", 8)])
    read = await read_signals(redis, "snap-2")
    assert read is not None
    depth = read[SignalName.QUEUE_DEPTH]
    assert (depth.value, depth.error) == (8, None)
    assert depth.age_s is not None
    assert depth.age_s >= 0.5


@pytest.mark.faults
async def test_F39_after_the_collector_stops_readers_get_an_error(redis: Redis) -> None:
    await write_signals(redis, [signals("snap-1", 7)])
    # As if written 10 s ago: that much of its life is over.
    await redis.pexpire("slipway:signals:snap-1", 50_000)
    read = await read_signals(redis, "snap-1")
    assert read is not None
    depth = read[SignalName.QUEUE_DEPTH]
    assert (depth.value, depth.error, depth.held) == (None, SignalError.STALE, 7)


@pytest.mark.faults
async def test_F39_after_sixty_seconds_there_is_nothing(redis: Redis) -> None:
    await write_signals(redis, [signals("snap-1", 7)])
    assert 59_000 < await redis.pttl("slipway:signals:snap-1") <= 60_000
    await redis.pexpire("slipway:signals:snap-1", 0)
    assert await read_signals(redis, "snap-1") is None


async def test_nothing_to_write_is_no_error(redis: Redis) -> None:
    await write_signals(redis, [])
    assert await read_signals(redis, "snap-1") is None
