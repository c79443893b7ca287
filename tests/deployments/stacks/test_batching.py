"""Requests that come together run together, with the same results as alone."""

import asyncio
from pathlib import Path

import numpy as np
import onnxruntime

from . import models
from .conftest import Start
from .replicas import Client, Page, client, request, values

LONG = 3_000_000
"""Steps of the counter: a second or more, far longer than the requests that are sent meanwhile."""


def count_to(*steps: int) -> dict[str, object]:
    return request(values("n", "INT64", list(steps)))


async def page_where(http: Client, waiting: int, in_flight: int) -> Page:
    """Scrapes until the replica is as busy as wanted."""
    async with asyncio.timeout(60):
        while True:
            page = await http.scrape()
            if (page("queue_depth"), page("in_flight")) == (waiting, in_flight):
                return page


async def test_concurrent_requests_share_runs_and_get_the_results_of_running_alone(
    start: Start, tmp_path: Path
) -> None:
    batching = {"max_batch_size": 16, "preferred_batch_size": [8], "max_queue_delay_microseconds": 5000}
    running = start(models.mlp, batching=batching).ready()
    rows = np.random.default_rng(1).standard_normal((200, 16)).astype(np.float32)
    alone = onnxruntime.InferenceSession(str(models.mlp(tmp_path / "same.onnx").path))
    async with client(running) as http:
        before = await http.scrape()
        answers = await asyncio.gather(
            *(http.infer(request(values("x", "FP32", row.tolist(), shape=[1, 16]))) for row in rows)
        )
        page = await http.scrape()
    for row, answered in zip(rows, answers, strict=True):
        np.testing.assert_allclose(
            answered.data(), alone.run(None, {"x": row[None]})[0][0], rtol=1e-4, atol=1e-5
        )
    ran, runs = (
        page("batch_size_sum") - before("batch_size_sum"),
        page("batch_size_count") - before("batch_size_count"),
    )
    assert ran == 200
    assert ran / runs > 2
    assert page("batch_size_bucket", "16") == runs


async def test_with_batching_off_every_request_runs_alone(start: Start) -> None:
    running = start(models.table, batching={"max_batch_size": 1}).ready()
    async with client(running) as http:
        await asyncio.gather(*(http.infer(request(values("i", "INT64", [1]))) for _ in range(20)))
        page = await http.scrape()
    assert (page("batch_size_count"), page("batch_size_sum")) == (20, 20)


async def test_requests_of_several_rows_are_cut_apart_again(start: Start) -> None:
    batching = {"max_batch_size": 16, "max_queue_delay_microseconds": 20_000}
    running = start(models.table, batching=batching).ready()
    sent = [[1], [2, 3], [0, 1, 2], [3]]
    async with client(running) as http:
        answers = await asyncio.gather(*(http.infer(request(values("i", "INT64", one))) for one in sent))
    assert [answered.data() for answered in answers] == [[10 * number for number in one] for one in sent]


async def test_requests_of_different_shapes_are_served_side_by_side(start: Start) -> None:
    running = start(models.row_sum, batching={"max_queue_delay_microseconds": 20_000}).ready()
    lengths = [1, 3, 1, 5, 3, 1]
    async with client(running) as http:
        answers = await asyncio.gather(
            *(http.infer(request(values("x", "FP32", [1.0] * n, shape=[1, n]))) for n in lengths)
        )
        page = await http.scrape()
    assert [answered.data() for answered in answers] == [[n] for n in lengths]
    assert page("batch_size_count") >= len(set(lengths))


async def test_one_bad_request_does_not_fail_its_neighbors_in_the_batch(start: Start) -> None:
    batching = {"max_batch_size": 4, "max_queue_delay_microseconds": 1_000_000}
    running = start(models.table, batching=batching).ready()
    async with client(running) as http:
        answers = await asyncio.gather(
            *(http.infer(request(values("i", "INT64", [n]))) for n in (1, 99, 2, 3))
        )
        page = await http.scrape()
    assert [answered.status for answered in answers] == [200, 500, 200, 200]
    assert [answers[number].data() for number in (0, 2, 3)] == [[10], [20], [30]]
    assert page.errors() == {"inference_failed": 1}


async def test_a_full_queue_is_answered_429_with_retry_after_and_the_queue_is_kept(start: Start) -> None:
    running = start(models.counter, batching={"max_batch_size": 1, "max_queue_size": 3}).ready()
    async with client(running) as http:
        running_one = asyncio.create_task(http.infer(count_to(LONG)))
        await page_where(http, waiting=0, in_flight=1)
        queued = [asyncio.create_task(http.infer(count_to(5))) for _ in range(3)]
        await page_where(http, waiting=3, in_flight=4)
        refused = await http.infer(count_to(5))
        assert (refused.status, refused.json["code"]) == (429, "overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
        assert (await running_one).data() == [LONG]
        assert [(await one).data() for one in queued] == [[5], [5], [5]]
        assert (await http.scrape()).errors() == {"overloaded": 1}


async def test_a_request_whose_client_has_gone_is_not_run(start: Start) -> None:
    running = start(models.counter, batching={"max_batch_size": 1}).ready()
    async with client(running) as http:
        kept = asyncio.create_task(http.infer(count_to(LONG)))
        await page_where(http, waiting=0, in_flight=1)
        async with client(running) as leaving:
            gone = [asyncio.create_task(leaving.infer(count_to(7))) for _ in range(3)]
            await page_where(http, waiting=3, in_flight=4)
            for one in gone:
                one.cancel()
            await asyncio.gather(*gone, return_exceptions=True)
        page = await page_where(http, waiting=0, in_flight=1)
        assert page.errors() == {"cancelled": 3}
        assert not kept.done()
        assert (await kept).data() == [LONG]
        page = await http.scrape()
        assert (page("batch_size_count"), page("requests_total", "499")) == (1, 3)


async def test_time_counters_advance_while_requests_wait_by_exactly_what_waits(start: Start) -> None:
    running = start(models.counter, batching={"max_batch_size": 1}).ready()
    async with client(running) as http:
        sent = [asyncio.create_task(http.infer(count_to(LONG)))]
        await page_where(http, waiting=0, in_flight=1)
        sent += [asyncio.create_task(http.infer(count_to(1))) for _ in range(2)]
        first = await page_where(http, waiting=2, in_flight=3)
        second = await http.scrape()
        assert (second("queue_depth"), second("in_flight")) == (2, 3)
        waited = second("queue_seconds_total") - first("queue_seconds_total")
        in_flight = second("in_flight_seconds_total") - first("in_flight_seconds_total")
        assert waited > 0
        assert abs(in_flight / waited - 3 / 2) < 1e-6
        await asyncio.gather(*sent)
        page = await http.scrape()
        assert (page("queue_depth"), page("in_flight")) == (0, 0)
        assert page("in_flight_seconds_total") > page("latency_seconds_sum") * 0.5
