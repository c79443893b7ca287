"""A collector whose database goes away keeps what it measured, and a chart shows no gap."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from redis.asyncio import Redis

from deployments.collector import Collector
from deployments.models import Rollup
from deployments.telemetry import rollup
from deployments.telemetry.rollup import Level
from tests.deployments.telemetry.fake_exporter import FakeExporter
from tests.deployments.test_collector import point_at
from tests.deployments.world import World, make
from tests.faults.stage import Stage

PERIOD_S = 0.2
SECOND = Level(resolution_s=1, keep_s=3600)
"""Windows of a second, so that an outage of a few seconds is one of several windows."""


@pytest.fixture
def world(stands: Stage, monkeypatch: pytest.MonkeyPatch) -> World:
    made = make(monkeypatch)
    made.serve()
    monkeypatch.setattr(rollup, "REPLICA_LEVEL", SECOND)
    monkeypatch.setattr(rollup, "DEPLOYMENT_LEVELS", (SECOND,))
    return made


async def _until(done: Callable[[], Any], *, within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while not done():
            await asyncio.sleep(PERIOD_S / 2)


def _stored() -> list[int]:
    """The seconds of which a window of the whole deployment is stored, in order."""
    rows = Rollup.objects.filter(resolution_s=1, replica="", revision=0).order_by("ts")
    return [int(ts.timestamp()) for ts in rows.values_list("ts", flat=True)]


async def test_windows_that_close_while_postgres_is_down_are_stored_when_it_is_back(
    stands: Stage, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = Redis.from_url(stands.values["REDIS_URL"])
    collector, stopping = Collector(redis=redis, period_s=PERIOD_S), asyncio.Event()
    async with FakeExporter(1) as exporter:
        point_at(world, exporter, monkeypatch)
        running = asyncio.create_task(collector.run(stopping))
        try:
            async with asyncio.timeout(30):
                while not await sync_to_async(_stored)():
                    await asyncio.sleep(PERIOD_S)
            await sync_to_async(connections.close_all)()
            await asyncio.to_thread(stands.postgres.stop, signal.SIGQUIT)
            await _until(lambda: len(collector.waiting) >= 6)
            assert not running.done()
            waiting = {one.key.ts for one in collector.waiting.first(100)}
            await asyncio.to_thread(stands.postgres.start)
            await _until(lambda: not collector.waiting)
        finally:
            stopping.set()
            await asyncio.wait_for(running, 30)
            await redis.aclose()
    stored = await sync_to_async(_stored)()
    assert waiting <= set(stored)
    assert stored == list(range(stored[0], stored[-1] + 1))
    assert collector.waiting.dropped == 0
    await sync_to_async(connections.close_all)()
