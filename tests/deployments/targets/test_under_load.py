"""Nothing that is done to an endpoint on purpose, and no replica that dies, costs a request."""

import asyncio
import io
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from deployments.domain.workload import ReplicaState, TargetStatus
from tests.deployments.targets.conftest import Node
from tests.deployments.targets.load import load

pytestmark = pytest.mark.processes

KEY = "d1"
LARGE = b"x" * 4 * 1024**2


async def ready(node: Node, number: int, *, revision: int | None = None, key: str = KEY) -> TargetStatus:
    """`number` replicas ready, and nothing else left."""
    return await asyncio.to_thread(
        node.until,
        key,
        lambda status: (
            status.ready(revision) == number
            and sum(revision in (None, one.revision) for one in status.replicas) == number
        ),
    )


async def test_scaling_up_and_down_costs_no_request(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 2), generation=1))
    await ready(node, 2)
    async with load(node.infer_url()) as running:
        generation = 1
        for replicas in (4, 1, 3, 2):
            generation += 1
            node.target.scale(KEY, revision=1, replicas=replicas, generation=generation)
            status = await ready(node, replicas)
            since = time.monotonic()
            await running.more(80)
            # Every replica that is ready takes its share at once.
            assert running.pids(after=since) >= {one.pid for one in status.replicas}
    assert running.failed == []


async def test_replacing_a_revision_costs_no_request(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 2), generation=1))
    await ready(node, 2)
    async with load(node.infer_url()) as running:
        await running.more(30)
        node.target.apply(node.wish(node.workload(1, 2), node.workload(2, 2), generation=2))
        await ready(node, 4)
        node.target.apply(node.wish(node.workload(2, 2), generation=3))
        await ready(node, 2)
        alone = time.monotonic()
        await running.more(100)
    assert running.failed == []
    assert {answer.revision for answer in running.answers if answer.sent > alone} == {2}


async def test_other_content_of_a_live_revision_is_rolled_without_a_gap(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 2), generation=1))
    before = {one.pid for one in (await ready(node, 2)).replicas}
    async with load(node.infer_url()) as running:
        await running.more(30)
        node.target.apply(node.wish(node.workload(1, 2, api_key_sha256="a" * 64), generation=2))
        await asyncio.to_thread(
            node.until,
            KEY,
            lambda status: (
                status.ready() == 2 == len(status.replicas)
                and not before & {one.pid for one in status.replicas}
            ),
        )
        await running.more(30)
    assert running.failed == []


async def test_a_killed_replica_costs_no_request_and_is_replaced(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 3), generation=1))
    victim = (await ready(node, 3)).replicas[0]
    assert victim.pid is not None
    async with load(node.infer_url(), per_s=200) as running:
        await running.more(100)
        os.kill(victim.pid, signal.SIGKILL)
        killed = time.monotonic()
        status = await asyncio.to_thread(
            node.until,
            KEY,
            lambda status: any(
                one.name == victim.name and one.pid != victim.pid and one.state is ReplicaState.READY
                for one in status.replicas
            ),
        )
        await asyncio.sleep(max(0, killed + 2 - time.monotonic()))  # The rule itself speaks of two seconds.
        await running.more(200)
    assert running.failed == []
    assert victim.pid not in running.pids(after=killed + 2)
    replaced = next(one for one in status.replicas if one.name == victim.name)
    assert replaced.restarts == 1
    assert replaced.reason == "killed by signal 9"
    assert replaced.pid in running.pids()


async def test_requests_in_flight_are_finished_when_their_replica_goes(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 2), generation=1))
    await ready(node, 2)
    async with aiohttp.ClientSession() as session:

        async def slow() -> int:
            async with session.post(f"{node.infer_url()}?slow_ms=1500", data=b"{}") as response:
                return response.status

        asked = [asyncio.create_task(slow()) for _ in range(8)]
        await in_flight(node, 8)
        node.target.scale(KEY, revision=1, replicas=1, generation=2)
        await ready(node, 1)
        assert {await one for one in asked} == {200}

        asked = [asyncio.create_task(slow()) for _ in range(4)]
        await in_flight(node, 4)
        node.target.delete(KEY)
        assert {await one for one in asked} == {200}
        async with session.post(node.infer_url(), data=b"{}") as response:
            assert response.status == 404


async def in_flight(node: Node, number: int, *, key: str = KEY) -> None:
    wanted = f'envoy_cluster_upstream_rq_active{{envoy_cluster_name="{key}"}} {number}'
    page = ""
    try:
        async with asyncio.timeout(10):
            while wanted not in (page := await asyncio.to_thread(node.target.proxy_stats)).splitlines():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(page) from None


@pytest.mark.parametrize("status", [429, 503])
async def test_a_replica_that_answers_errors_is_busy_and_not_ejected(node: Node, status: int) -> None:
    busy = node.workload(2, 1, environment={"STAND_IN_STATUS": str(status)})
    node.target.apply(node.wish(node.workload(1, 1), busy, generation=1))
    await ready(node, 2)
    async with load(node.infer_url()) as running:
        await running.more(300)
    for part in (running.answers[100:200], running.answers[200:300]):
        assert {answer.status for answer in part} == {200, status}
        assert sum(answer.status == status for answer in part) > 20


async def test_a_frozen_replica_is_taken_out_and_replaced(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 2), generation=1))
    victim = (await ready(node, 2)).replicas[0]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGSTOP)
    status = await asyncio.to_thread(
        node.until,
        KEY,
        lambda status: status.ready() == 2 and any(one.restarts for one in status.replicas),
        within_s=30,
    )
    replaced = next(one for one in status.replicas if one.name == victim.name)
    assert replaced.reason == "its liveness check is not answered, 3 times in a row"
    assert victim.pid not in node.processes()


async def test_a_replica_that_says_it_is_not_ready_gets_no_request_but_keeps_its_process(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 2), generation=1))
    before = await ready(node, 2)
    shy = before.replicas[0]
    marker = node.home / "node" / "replicas" / KEY / shy.name / "not-ready"
    marker.touch()
    status = await asyncio.to_thread(node.until, KEY, lambda status: status.ready() == 1)
    out = time.monotonic() + 0.5
    reason = next(one for one in status.replicas if one.name == shy.name).reason
    assert reason == "its readiness check answers 503"
    async with load(node.infer_url()) as running:
        await running.more(100)
    assert running.failed == []
    assert shy.pid not in running.pids(after=out)
    marker.unlink()
    back = await ready(node, 2)
    assert {one.pid for one in back.replicas} == {one.pid for one in before.replicas}


async def test_without_a_ready_replica_the_answer_is_a_problem_with_a_time_to_come_back(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 0), generation=1))
    async with aiohttp.ClientSession() as session:
        for _ in range(100):
            async with session.post(node.infer_url(), data=b"{}") as response:
                body = await response.json(content_type="application/problem+json")
            if response.status == 503:
                break
            await asyncio.sleep(0.02)  # The route itself appears within milliseconds.
        assert (response.status, body["code"]) == (503, "no_replica_ready")
        assert response.headers["Retry-After"] == "1"
        async with session.get(f"http://127.0.0.1:{node.data_port}/team/unknown/v2") as response:
            body = await response.json(content_type="application/problem+json")
        assert (response.status, body["code"]) == (404, "no_such_endpoint")


async def test_a_large_request_survives_the_death_of_its_replica(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 2), generation=1))
    victim = (await ready(node, 2)).replicas[0]
    assert victim.pid is not None
    async with aiohttp.ClientSession() as session:
        url = f"{node.infer_url()}?slow_ms=1000"
        asked = [asyncio.create_task(post(session, url, io.BytesIO(LARGE))) for _ in range(4)]
        await in_flight(node, 4)
        os.kill(victim.pid, signal.SIGKILL)
        assert {await one for one in asked} == {(200, len(LARGE))}


async def test_a_request_that_is_still_arriving_survives_the_death_of_a_replica(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 2), generation=1))
    victim = (await ready(node, 2)).replicas[0]
    assert victim.pid is not None
    died = asyncio.Event()

    async def halves() -> AsyncIterator[bytes]:
        yield LARGE[: len(LARGE) // 2]
        await died.wait()
        yield LARGE[len(LARGE) // 2 :]

    async with aiohttp.ClientSession() as session:
        length = {"Content-Length": str(len(LARGE))}
        asked = [
            asyncio.create_task(post(session, node.infer_url(), halves(), headers=length)) for _ in range(4)
        ]
        await received(node, 2 * len(LARGE))
        os.kill(victim.pid, signal.SIGKILL)
        died.set()
        assert {await one for one in asked} == {(200, len(LARGE))}


async def test_a_replica_may_die_while_the_node_cannot_tell_the_proxy(node: Node) -> None:
    """The dead one has the fewest requests of all, and must not be given the retries for that."""
    assert node.process is not None
    keys = ("d1", "d2", "d3")
    for key in keys:
        node.target.apply(node.wish(node.workload(1, 2), generation=1, key=key))
    victims = [(await ready(node, 2, key=key)).replicas[0].pid for key in keys]
    async with aiohttp.ClientSession() as session:
        asked = [
            asyncio.create_task(post(session, f"{node.infer_url(key)}?slow_ms=1000", b"{}"))
            for key in keys
            for _ in range(2)
        ]
        for key in keys:
            await in_flight(node, 2, key=key)
        node.process.send_signal(signal.SIGSTOP)
        try:
            for pid in victims:
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            assert {await one for one in asked} == {(200, 2)}
        finally:
            node.process.send_signal(signal.SIGCONT)


async def post(session: aiohttp.ClientSession, url: str, body: object, **given: Any) -> tuple[int, int | str]:
    """Status, and how many bytes the replica read, or the answer as it came."""
    async with session.post(url, data=body, **given) as response:
        answer = await response.text()
        return response.status, json.loads(answer).get("bytes", answer)


async def received(node: Node, size_bytes: int) -> None:
    """Returns when the proxy has read so much of its clients' requests."""
    name = "envoy_http_downstream_cx_rx_bytes_total{"
    async with asyncio.timeout(10):
        while True:
            page = await asyncio.to_thread(node.target.proxy_stats)
            lines = [line for line in page.splitlines() if line.startswith(name) and '"data"' in line]
            if sum(int(line.rpartition(" ")[2]) for line in lines) >= size_bytes:
                return
            await asyncio.sleep(0.02)


async def test_two_endpoints_do_not_meet(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 1), generation=1))
    node.target.apply(replace(node.wish(node.workload(7, 1), generation=1, key="d2"), path="/team/d1-b"))
    await ready(node, 1)
    await asyncio.to_thread(node.until, "d2", lambda status: status.ready() == 1)
    async with aiohttp.ClientSession() as session:
        for path, revision in (("d1", 1), ("d1-b", 7)):
            url = f"http://127.0.0.1:{node.data_port}/team/{path}/v2/models/m/infer"
            async with session.post(url, data=b"{}") as response:
                answer = await response.json()
            assert (answer["revision"], answer["path"]) == (revision, "/v2/models/m/infer")


async def test_the_real_replica_is_rolled_scaled_and_killed_without_a_failed_request(
    resting_node: Node,
) -> None:
    node = resting_node
    node.stand_in = False
    node.start()
    node.target.apply(node.wish(node.model_workload(1, 2), generation=1))
    await ready(node, 2)
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]})
    async with load(node.infer_url(), body=body.encode()) as running:
        await running.more(50)
        node.target.apply(node.wish(node.model_workload(1, 2), node.model_workload(2, 2), generation=2))
        await ready(node, 4)
        node.target.apply(node.wish(node.model_workload(2, 2), generation=3))
        victim = (await ready(node, 2)).replicas[0]
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        await asyncio.to_thread(
            node.until,
            KEY,
            lambda status: status.ready() == 2 and any(one.restarts for one in status.replicas),
        )
        node.target.scale(KEY, revision=2, replicas=1, generation=4)
        await ready(node, 1)
        await running.more(50)
    assert running.failed == []
