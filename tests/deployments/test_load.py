"""The demo load: leaves by the clock, is bounded by its row, and is counted."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from asgiref.sync import sync_to_async
from django.db import connections
from django.db.models.functions import Now
from hypothesis import given
from hypothesis import strategies as st

from deployments import services
from deployments.domain import example
from deployments.load import Loads, bodies_for
from deployments.models import Deployment, Load
from tests.deployments.world import World, make

DTYPES = ("BOOL", "INT8", "INT32", "INT64", "UINT8", "FP16", "FP32", "FP64", "BYTES")
tensors = st.builds(
    lambda dtype, rest: {"name": "x", "dtype": dtype, "shape": ["batch", *rest]},
    st.sampled_from(DTYPES),
    st.lists(st.one_of(st.integers(1, 6), st.just("free")), max_size=3),
)


@given(tensor=tensors, seed=st.integers(0, 99), rows=st.integers(1, 4))
def test_random_requests_fit_their_signature(tensor: dict[str, Any], seed: int, rows: int) -> None:
    body = example.random_body({"inputs": [tensor]}, random.Random(seed), rows=rows)
    (sent,) = body["inputs"]
    size = 1
    for place, wanted in enumerate(tensor["shape"]):
        assert sent["shape"][place] == (wanted if isinstance(wanted, int) else sent["shape"][place])
        size *= sent["shape"][place]
    assert sent["shape"][0] == rows
    assert len(sent["data"]) == size
    assert json.loads(json.dumps(body)) == body
    if tensor["dtype"].startswith(("INT", "UINT")):
        assert all(0 <= value <= (127 if tensor["dtype"] == "INT8" else 255) for value in sent["data"])


@given(tensor=tensors)
def test_the_example_of_a_snippet_is_python_that_gives_a_request(tensor: dict[str, Any]) -> None:
    signature = {"inputs": [tensor | {"name": 'it\'s "x"'}]}
    (made,) = eval(example.python_body(signature))["inputs"]
    size = 1
    for length in made["shape"]:
        size *= length
    assert len(made["data"]) == size
    if example.is_short(signature):
        assert example.json_body(signature)["inputs"][0]["data"] == made["data"]


@pytest.fixture
async def closed() -> AsyncIterator[None]:
    """The thread in which a test asks the database keeps no connection behind."""
    yield
    await sync_to_async(connections.close_all)()


class Endpoint:
    """Counts what it is asked; answers as it is told."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
        self.hold = asyncio.Event()
        self.hold.set()

    async def answer(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        await self.hold.wait()
        return web.json_response({}, status=self.status)


@asynccontextmanager
async def _endpoint(world: World) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    app = web.Application()
    app.router.add_post("/{rest:.*}", endpoint.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    row = await sync_to_async(Deployment.objects.get)(pk=world.row.pk)
    seen = row.observed | {"address": f"http://127.0.0.1:{port}/team/scorer"}
    await sync_to_async(Deployment.objects.filter(pk=row.pk).update)(observed=seen)
    try:
        yield endpoint
    finally:
        endpoint.hold.set()
        await runner.cleanup()


@asynccontextmanager
async def _sending() -> AsyncIterator[None]:
    stopping = asyncio.Event()
    task = asyncio.create_task(Loads().run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await asyncio.wait_for(task, 20)


async def _until(done: Any, *, within_s: float = 20) -> None:
    async with asyncio.timeout(within_s):
        while not await sync_to_async(done)():
            await asyncio.sleep(0.05)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = make(monkeypatch)
    made.serve()
    made.step()
    return made


def _start(world: World, rate: float, seconds: int = 60) -> Load:
    return services.start_load(world.owner, world.deployment, rate_per_s=rate, duration_s=seconds)


@pytest.mark.usefixtures("closed")
@pytest.mark.django_db(transaction=True)
async def test_what_is_sent_arrives_and_is_counted(world: World) -> None:
    async with _endpoint(world) as endpoint:
        await sync_to_async(_start)(world, 50)
        async with _sending():
            await _until(lambda: Load.objects.get().sent >= 50)
        load = await sync_to_async(Load.objects.get)()
        assert load.failed == 0
        assert load.sent == len(endpoint.bodies)
        assert endpoint.bodies[0]["inputs"][0]["shape"] == [1, 4]
        assert len({json.dumps(body) for body in endpoint.bodies}) > 10, "not always the same values"


@pytest.mark.usefixtures("closed")
@pytest.mark.django_db(transaction=True)
async def test_refusals_are_counted_as_failed(world: World) -> None:
    async with _endpoint(world) as endpoint:
        endpoint.status = 429
        await sync_to_async(_start)(world, 50)
        async with _sending():
            await _until(lambda: Load.objects.get().failed >= 20)
        load = await sync_to_async(Load.objects.get)()
        assert load.failed == load.sent


@pytest.mark.usefixtures("closed")
@pytest.mark.django_db(transaction=True)
async def test_a_slow_endpoint_is_not_spared(world: World) -> None:
    """Open loop: requests leave while none has been answered."""
    async with _endpoint(world) as endpoint:
        endpoint.hold.clear()
        await sync_to_async(_start)(world, 50)
        async with _sending():
            await _until(lambda: len(endpoint.bodies) >= 30)
            endpoint.hold.set()


@pytest.mark.usefixtures("closed")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", ["stopped", "over", "removing"])
async def test_a_row_that_ended_sends_nothing_more(world: World, how: str) -> None:
    def end() -> None:
        match how:
            case "stopped":
                services.stop_load(world.owner, world.deployment)
            case "over":
                Load.objects.update(until=Now() - timedelta(seconds=1))
            case _:
                Deployment.objects.update(removing=True)

    async with _endpoint(world) as endpoint:
        await sync_to_async(_start)(world, 50)
        async with _sending():
            await _until(lambda: endpoint.bodies)
            await sync_to_async(end)()
            before = -1
            async with asyncio.timeout(20):
                while before != len(endpoint.bodies):  # two looks a poll apart that find the same
                    before = len(endpoint.bodies)
                    await asyncio.sleep(1.2)
        assert len(endpoint.bodies) == before


@pytest.mark.usefixtures("closed")
@pytest.mark.django_db(transaction=True)
async def test_raising_the_rate_lets_answers_on_their_way_arrive(world: World) -> None:
    async with _endpoint(world) as endpoint:
        endpoint.hold.clear()
        await sync_to_async(_start)(world, 20)
        async with _sending():
            await _until(lambda: len(endpoint.bodies) >= 5)
            await sync_to_async(_start)(world, 100)
            await _until(lambda: len(endpoint.bodies) >= 60)
            endpoint.hold.set()
            await _until(lambda: Load.objects.get().sent >= 60)
        load = await sync_to_async(Load.objects.get)()
        assert load.failed == 0


@pytest.mark.django_db
def test_an_evaluation_set_of_the_model_is_what_is_sent(world: World) -> None:
    import io

    import numpy as np

    from controlplane.core import storage
    from controlplane.registry.models import Artifact, Dataset

    items = np.arange(20, dtype=np.float32).reshape(5, 4)
    archive = io.BytesIO()
    np.savez(archive, x=items, labels=np.zeros(5, np.int64))
    blob = storage.put([archive.getvalue()], limit_bytes=10_000)
    variant = world.deployment.live_revision.variant  # type: ignore[union-attr]
    Dataset.objects.create(
        model=variant.version.model,
        name="held-out",
        role="evaluation",
        artifact=Artifact.objects.create(sha256=blob.sha256, size_bytes=blob.size_bytes),
        items=5,
    )
    bodies = [json.loads(body) for body in bodies_for(variant.pk)]
    assert [body["inputs"][0]["data"] for body in bodies] == items.tolist()
    assert bodies[0]["inputs"][0]["shape"] == [1, 4]
