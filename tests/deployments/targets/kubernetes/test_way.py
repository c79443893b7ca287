"""Pods are measured through the API server where Slipway does not reach their addresses: what it refuses is a gap."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from deployments.domain.workload import ReplicaStatus
from deployments.targets.kubernetes import opening
from deployments.targets.kubernetes.api import Api
from deployments.targets.kubernetes.target import KubernetesTarget
from deployments.telemetry.measuring import Measuring
from deployments.telemetry.scrape import Scrape, Target, Unanswered
from deployments.telemetry.scraper import Scraper
from deployments.telemetry.signals import SignalName
from tests.deployments.targets.kubernetes.fake import Script
from tests.deployments.targets.kubernetes.room import Room, cluster_workload
from tests.deployments.targets.kubernetes.test_own_loop import rolled, wish
from tests.deployments.telemetry.fake_exporter import METRICS, FakeReplica
from tests.deployments.telemetry.scraping import Taken, running


def page(queue: float) -> str:
    """What a replica of the FastAPI stack prints."""
    one = FakeReplica("ranker-0")
    one.queue_depth = queue
    return one.page().decode()


def scraped(room: Room, pod: ReplicaStatus, *, token: str = "of-the-fake") -> Target:
    connection = replace(room.api.connection, token=token)
    target = KubernetesTarget(Api(connection), room.place, pull_token=lambda key: "", proxied=True)
    assert target.way is not None
    return Target(
        deployment="d1",
        revision=1,
        replica=pod.name,
        url=target.way.page(pod),
        metrics=METRICS,
        way=target.way,
    )


@pytest.fixture
def pod(fake_room: Room, key: str) -> ReplicaStatus:
    fake_room.target.apply(wish(key, cluster_workload(1, 1)))
    return fake_room.until(key, rolled(1)).replicas[0]


@pytest.fixture
async def taken() -> Taken:
    return Taken()


async def one_of(target: Target, taken: Taken, *, within_s: float = 1.0) -> Scrape:
    scraper = Scraper(on_scrape=taken.take, interval_s=0.1, timeout_s=within_s)
    scraper.replace([target])
    async with running(scraper):
        await taken.until(lambda: bool(taken.scrapes))
    return taken.scrapes[0]


async def test_a_pod_s_own_page_comes_through_the_api_server(
    fake_room: Room, pod: ReplicaStatus, taken: Taken
) -> None:
    assert fake_room.fake is not None
    fake_room.fake.cluster.pages[f"{pod.name}:8000"] = page(7)
    target = scraped(fake_room, pod)
    assert target.url.endswith(f"/api/v1/namespaces/ml/pods/{pod.name}:8000/proxy/metrics")
    assert (await one_of(target, taken)).failure is None


@pytest.mark.parametrize(
    ("make", "failure", "detail"),
    [
        (lambda room, pod: scraped(room, pod, token="revoked"), Unanswered.STATUS, "HTTP 401"),
        (scraped, Unanswered.STATUS, "HTTP 404"),
    ],
)
async def test_what_is_refused_is_a_gap(
    fake_room: Room,
    pod: ReplicaStatus,
    taken: Taken,
    make: Callable[[Room, ReplicaStatus], Target],
    failure: Unanswered,
    detail: str,
) -> None:
    scrape = await one_of(make(fake_room, pod), taken)
    assert (scrape.failure, scrape.detail) == (failure, detail)


async def test_an_api_server_that_is_slow_is_a_gap(fake_room: Room, pod: ReplicaStatus, taken: Taken) -> None:
    assert fake_room.fake is not None
    slow = Script(
        matches=lambda request: "/proxy/" in str(request.url.path), status=500, delay_s=0.5, times=9
    )
    fake_room.fake.script(slow)
    scrape = await one_of(scraped(fake_room, pod), taken, within_s=0.1)
    assert scrape.failure is Unanswered.TIMEOUT


async def test_a_gap_is_no_zero_in_the_signals(fake_room: Room, pod: ReplicaStatus) -> None:
    measuring = Measuring(period_s=5.0)
    target = scraped(fake_room, pod)
    measuring.expect({"d1": [target]}, now=0.0)
    refused = Scrape(
        target=target, at_monotonic=1.0, at_wall=1.0, late_s=0.0, failure=Unanswered.STATUS, detail="HTTP 401"
    )
    await measuring._heard(refused)
    found = measuring.signals("d1", now=20.0, at_wall=20.0, ready=1)
    assert found[SignalName.QUEUE_DEPTH].value is None
    assert found.period_s == 5.0


@pytest.mark.parametrize(
    ("settings", "proxied"),
    [
        ({}, True),
        ({"in_cluster": True}, False),
        ({"scrape": "pods"}, False),
        ({"in_cluster": True, "scrape": "proxy"}, True),
    ],
)
def test_the_way_follows_where_slipway_stands_unless_it_is_told(
    settings: dict[str, object], proxied: bool
) -> None:
    assert opening.is_proxied(settings) is proxied


def test_a_page_s_port_is_the_one_that_metrics_are_on(fake_room: Room) -> None:
    target = KubernetesTarget(fake_room.api, fake_room.place, pull_token=lambda key: "", proxied=True)
    assert target.way is not None
    pod = SimpleNamespace(name="fraud-1", url="http://[fd00::7]:8002")
    assert target.way.page(pod).endswith("/pods/fraud-1:8002/proxy/metrics")  # type: ignore[arg-type]
