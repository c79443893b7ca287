"""From pages of metrics to signals, decisions and windows, with a real broker, database and exporter."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections
from redis.asyncio import Redis

from deployments import collector, reconciler
from deployments.collector import Collector
from deployments.domain.workload import TargetStatus
from deployments.models import Decision, Deployment, Rollup
from deployments.models import Target as TargetRow
from deployments.telemetry.sheet import SignalLabels
from deployments.telemetry.signals import DeploymentSignals, SignalName
from deployments.telemetry.snapshot import SHEET_WRITTEN, Sheet, read_sheet, read_signals
from tests.deployments.telemetry.fake_exporter import FakeExporter, Mode
from tests.deployments.world import World

pytestmark = pytest.mark.django_db(transaction=True)
PERIOD_S = 0.2


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    """The thread in which a test asks the database keeps no connection behind."""
    yield
    await sync_to_async(connections.close_all)()


@pytest.fixture
def world(world: World) -> World:
    world.serve()
    return world


def point_at(world: World, exporter: FakeExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory target's replicas answer scrapes at the exporter's addresses."""
    observe_all = world.target.observe_all

    def seen() -> tuple[TargetStatus, ...]:
        return tuple(
            replace(
                status,
                replicas=tuple(
                    # What follows the hash is not sent: every address gets “/metrics” behind it.
                    replace(one, url=f"{exporter.url(min(number, len(exporter.replicas) - 1))}#")
                    for number, one in enumerate(status.replicas)
                ),
            )
            for status in observe_all()
        )

    monkeypatch.setattr(world.target, "observe_all", seen)


@asynccontextmanager
async def _collecting(period_s: float = PERIOD_S) -> AsyncIterator[Redis]:
    redis = Redis.from_url(settings.ENVIRONMENT.redis_url)
    stopping = asyncio.Event()
    task = asyncio.create_task(Collector(redis=redis, period_s=period_s).run(stopping))
    try:
        yield redis
    finally:
        stopping.set()
        await asyncio.wait_for(task, 20)
        await redis.aclose()


async def _until(done: Callable[[], Any], *, within_s: float = 20) -> Any:
    """Polls what another process's clock decides; the bound is only there to fail."""
    async with asyncio.timeout(within_s):
        while not (found := await sync_to_async(done)()):
            await asyncio.sleep(PERIOD_S / 2)
    return found


async def test_scrapes_become_signals_decisions_and_windows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeExporter(1) as exporter:
        point_at(world, exporter, monkeypatch)
        exporter.replicas[0].queue_depth = 25
        async with _collecting() as redis:
            await _until(lambda: Deployment.objects.get().replicas == 3)
            await _signal(redis, world, SignalName.QUEUE_DEPTH, 25)
        decision = await sync_to_async(Decision.objects.filter(desired_replicas=3, current_replicas=1).get)()
        assert decision.sentence.startswith("Scaled 1 to 3: inference_queue_depth 25")
        windows = await sync_to_async(Rollup.objects.filter(replica="", revision=0).count)()
        assert windows >= 1, "open windows are written when it stops"


async def test_what_runs_in_a_namespace_is_on_the_sheet_for_autoscalers_elsewhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = SignalLabels(namespace="models", labels={"deployment": "bert"})
    monkeypatch.setattr(collector, "labels_of", lambda row: labels if row.pk == world.row.pk else None)
    await sync_to_async(_second_deployment)(world)
    async with FakeExporter(1) as exporter:
        point_at(world, exporter, monkeypatch)
        exporter.replicas[0].queue_depth = 25
        async with _collecting() as redis:
            await _signal(redis, world, SignalName.QUEUE_DEPTH, 25)
            sheet = await _sheet(redis, deployments=1)
            (signals,) = sheet.lines.values()
            assert list(sheet.lines) == [labels.to_json()]
            assert DeploymentSignals.from_json(signals).deployment == world.row.key
            monkeypatch.setattr(collector, "labels_of", lambda row: None)
            await _sheet(redis, deployments=0)


@pytest.fixture
def one_period(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """So long that what is seen at the pods of a cluster, which are scraped each second, is seen within the first."""
    monkeypatch.setattr(TargetRow, "is_cluster", True)
    monkeypatch.setattr(collector, "_way", lambda row: None)
    periods, period = count(), Collector._period

    async def counted(self: Collector) -> None:
        next(periods)
        await period(self)

    monkeypatch.setattr(Collector, "_period", counted)
    yield 600.0
    assert next(periods) == 1


async def test_autoscalers_elsewhere_are_told_of_pods_between_two_periods(
    world: World, monkeypatch: pytest.MonkeyPatch, one_period: float
) -> None:
    labels = SignalLabels(namespace="models", labels={"deployment": "bert"})
    monkeypatch.setattr(collector, "labels_of", lambda row: labels)
    async with FakeExporter(1) as exporter:
        point_at(world, exporter, monkeypatch)
        async with _collecting(one_period) as redis, redis.pubsub() as written:
            await written.subscribe(SHEET_WRITTEN)
            for waiting in (25, 40):
                exporter.replicas[0].queue_depth = waiting
                async with asyncio.timeout(20):
                    while await _told(redis) != waiting:
                        await written.get_message(timeout=1)


async def test_a_burst_is_decided_on_before_the_next_period(
    world: World, monkeypatch: pytest.MonkeyPatch, one_period: float
) -> None:
    async with FakeExporter(1) as exporter:
        point_at(world, exporter, monkeypatch)
        async with _collecting(one_period):
            exporter.replicas[0].queue_depth = 25
            await _until(lambda: Deployment.objects.get().replicas == 3)


async def _told(redis: Redis) -> float | None:
    sheet = await read_sheet(redis)
    found = [DeploymentSignals.from_json(one) for one in (sheet.lines.values() if sheet else ())]
    return found[0][SignalName.QUEUE_DEPTH].value if found else None


async def test_what_moves_in_a_cluster_is_shown_before_the_next_period(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    followers: list[Callable[[str], None]] = []
    monkeypatch.setattr(world.target, "follow", followers.append)
    rows = Deployment.objects.filter(pk=world.row.pk)
    async with _collecting(period_s=600) as redis:
        async with asyncio.timeout(20):
            while await read_signals(redis, world.row.key) is None:  # the first period's look is over then
                await asyncio.sleep(PERIOD_S / 2)
        await rows.aupdate(observed={"replicas": "as it was"})
        # As the threads do that follow a cluster: several objects at once, and what is no deployment's.
        for key in (world.row.key, world.row.key, "", "somebody-else"):
            await asyncio.to_thread(followers[0], key)
        await _until(lambda: rows.get().observed.get("generation") is not None)


async def test_what_a_page_says_can_be_stored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeExporter(1) as exporter:
        point_at(world, exporter, monkeypatch)
        async with _collecting() as redis:
            await _signal(redis, world, SignalName.REQUEST_RATE, 0)
            exporter.replicas[0].serve([], failed=3, reason="over\0loaded")
            scrapes = exporter.replicas[0].scrapes
            # The one after the next was asked for when the next one's page had been taken.
            await _until(lambda: exporter.replicas[0].scrapes >= scrapes + 2)
        windows = Rollup.objects.filter(replica="", revision=0)
        assert {reason async for row in windows for reason in row.data["errors"]} == {"over loaded"}


async def test_a_silent_replica_holds_the_size_and_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F36 and F39: after three periods the signal is an error, never a zero."""
    async with FakeExporter(1) as exporter:
        point_at(world, exporter, monkeypatch)
        exporter.replicas[0].queue_depth = 25
        async with _collecting() as redis:
            await _until(lambda: Deployment.objects.get().replicas == 3)
            exporter.replicas[0].queue_depth = 0
            exporter.replicas[0].mode = Mode.DROP
            stale = {"current_replicas": 3, "signals__inference_queue_depth__error": "stale"}
            held = await _until(lambda: Decision.objects.filter(**stale).first())
            assert (held.desired_replicas, held.limited_by) == (3, "missing_metric")
            assert "could not be read (stale" in held.sentence
            signals = await read_signals(redis, world.row.key)
            assert signals is not None
            assert signals[SignalName.QUEUE_DEPTH].value is None
        assert (await sync_to_async(Deployment.objects.get)()).replicas == 3


async def test_a_paused_autoscaler_decides_nothing_but_is_still_measured(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sync_to_async(Deployment.objects.update)(autoscaling_paused=True)
    async with FakeExporter(1) as exporter:
        point_at(world, exporter, monkeypatch)
        exporter.replicas[0].queue_depth = 25
        async with _collecting() as redis:
            await _signal(redis, world, SignalName.QUEUE_DEPTH, 25)
        assert await sync_to_async(Decision.objects.count)() == 0
        assert (await sync_to_async(Deployment.objects.get)()).replicas == 1


async def test_a_clock_that_is_set_back_does_not_stretch_the_autoscaler_s_windows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeExporter(1) as exporter:
        point_at(world, exporter, monkeypatch)
        async with _collecting():
            await _until(lambda: Decision.objects.exists())
            hour_ago = SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() - 3600)
            monkeypatch.setattr(collector, "time", hour_ago)
            exporter.replicas[0].queue_depth = 25
            grown = await _until(
                lambda: Deployment.objects.filter(replicas=3, hpa_state__state__isnull=False).first()
            )
        times = [at_s for _, at_s in grown.hpa_state["state"]["recommendations"]]
        assert max(times) - min(times) < 1800
        moments = [row.at async for row in Decision.objects.all()]
        assert max(moments) - min(moments) > timedelta(seconds=1800), "a person reads the wall clock"


async def test_a_removed_deployment_does_not_stop_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await sync_to_async(_second_deployment)(world)
    async with FakeExporter(2) as exporter:
        point_at(world, exporter, monkeypatch)
        async with _collecting():
            await _until(lambda: Decision.objects.filter(deployment=other).exists())
            await sync_to_async(_remove)(other)
            last = await sync_to_async(Decision.objects.filter(deployment=world.row).first)()
            assert last is not None
            await _until(
                lambda: Decision.objects.filter(deployment=world.row, last_at__gt=last.last_at).exists()
            )


async def test_replicas_of_an_unreachable_target_are_measured_as_long_as_they_serve(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node may be gone while its replicas serve: their number is then unknown, what they do is not."""
    async with FakeExporter(1) as exporter:
        point_at(world, exporter, monkeypatch)
        async with _collecting() as redis:
            await _until(lambda: Decision.objects.exists())
            world.target.reachable = False
            for waiting in (5, 6):
                exporter.replicas[0].queue_depth = waiting
                await _signal(redis, world, SignalName.QUEUE_DEPTH, waiting)
            row = await sync_to_async(Deployment.objects.get)()
            assert row.observed["replicas"], "the last known state is kept with its age"
            before = await Decision.objects.alatest("last_at")
            exporter.replicas[0].queue_depth = 7
            await _signal(redis, world, SignalName.QUEUE_DEPTH, 7)
            after = await Decision.objects.alatest("last_at")
            assert after.last_at == before.last_at, "nothing is decided meanwhile"
            world.target.reachable = True
            await _until(lambda: Decision.objects.filter(last_at__gt=before.last_at).exists())
        windows = [row.data async for row in Rollup.objects.filter(replica="", revision=0)]
        assert {one["replicas_ready"] for one in windows} <= {1, None}
        assert 7 in [one["queue_depth_max"] for one in windows]


async def _signal(redis: Redis, world: World, name: SignalName, value: float) -> None:
    """Waits until the signal says so."""
    async with asyncio.timeout(20):
        while (found := await read_signals(redis, world.row.key)) is None or found[name].value != value:
            await asyncio.sleep(PERIOD_S / 2)


async def _sheet(redis: Redis, *, deployments: int) -> Sheet:
    """Waits until so many are on it."""
    async with asyncio.timeout(20):
        while (found := await read_sheet(redis)) is None or len(found.lines) != deployments:
            await asyncio.sleep(PERIOD_S / 2)
    return found


def _second_deployment(world: World) -> Deployment:
    from deployments import services, specs

    row, _ = services.create_deployment(world.owner, name="other", target=world.row.target)
    variant = world.row.revisions.get().variant
    revision = services.add_revision(world.owner, row, variant=variant, spec=specs.read_spec({}))
    services.roll_out(world.owner, row, revision, etag=None)
    for _ in range(6):
        world.target.advance(1)
        reconciler.reconcile(row.pk)
    return Deployment.objects.get(pk=row.pk)


def _remove(row: Deployment) -> None:
    """As the reconciler does at the end of a removal, in the middle of a period."""
    Deployment.objects.filter(pk=row.pk).update(live_revision=None)
    row.delete()
