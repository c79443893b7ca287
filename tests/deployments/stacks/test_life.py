"""How a replica starts, and how it leaves without losing anybody."""

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from . import models
from .conftest import Start
from .replicas import REPOSITORY, Answered, Client, client, configuration, replica, request, values

ROW = request(values("x", "FP32", [0.5] * 16, shape=[1, 16]))


async def test_it_is_live_at_once_and_ready_only_when_the_model_has_run(start: Start) -> None:
    running = start(lambda path: models.slow_starter(path, steps=2_000_000))
    async with client(running) as http:
        assert (await http.get("/v2/health/live")).status == 200
        ready = await http.get("/v2/health/ready")
        early = await http.infer(request(values("x", "INT64", [1])))
        assert (ready.status, early.status, early.json["code"]) == (503, 503, "not_ready")
        assert early.headers["Retry-After"] == "1"
        assert (await http.scrape())("queue_depth") == 0
        running.ready()
        assert (await http.get("/v2/health/ready")).status == 200
        page = await http.scrape()
        assert (page("batch_size_count"), page.errors()) == (0, {"not_ready": 1})


async def test_stopped_while_it_loads_it_leaves_at_once(start: Start) -> None:
    running = start(lambda path: models.slow_starter(path, steps=10**12))
    assert running.port
    running.terminate()
    assert running.ended() == 0


def _not_a_model(path: Path) -> models.Made:
    made = models.mlp(path)
    path.write_bytes(b"\x7fELF")
    return made


def _other_names(path: Path) -> models.Made:
    made = models.mlp(path)
    return models.Made(
        path=path, signature=made.signature | {"inputs": [models.tensor("z", "FP32", ["b", 16])]}
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_not_a_model, "cannot be opened"),
        (_other_names, "its signature says ['z']"),
        (models.whole_sum, "Set max_batch_size to 1"),
    ],
)
def test_a_model_that_cannot_be_served_ends_it_with_the_reason_in_the_log(
    start: Start, make: Any, says: str
) -> None:
    running = start(make)
    assert says in running.until("cannot_serve")["error"]
    assert running.ended() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"no_such_key": 1},
        {"batching": {"max_batch_size": 0}},
        {"batching": {"max_batch_size": 4, "preferred_batch_size": [8]}},
        {"threads": 65},
        {"api_key_sha256": "short"},
        {"port": 70_000},
        {"signature": {"inputs": [], "outputs": []}},
    ],
    ids=str,
)
def test_an_impossible_configuration_is_one_clear_line(start: Start, change: dict[str, Any]) -> None:
    running = start(models.mlp, **change)
    assert running.until("bad_configuration")["error"]
    assert running.ended() == 2


def test_a_taken_port_is_one_clear_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        running = start(models.mlp, port=taken.getsockname()[1])
        assert "in use" in running.until("cannot_listen")["error"]
        assert running.ended() == 1


class Load:
    """A closed loop of clients that stops, as a proxy does, when readiness is seen off."""

    def __init__(self, http: Client) -> None:
        self._http = http
        self._welcome = True
        self.answers: list[Answered] = []

    async def _client(self) -> None:
        while self._welcome:
            self.answers.append(await self._http.infer(ROW))

    async def _watch(self) -> None:
        while self._welcome:
            self._welcome = (await self._http.get("/v2/health/ready")).status == 200

    async def run(self, clients: int) -> None:
        await asyncio.gather(self._watch(), *(self._client() for _ in range(clients)))

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.answers) < count:
                await self._http.get("/v2/health/live")


async def test_f44_sigterm_under_load_turns_readiness_off_first_and_loses_no_request(start: Start) -> None:
    running = start(models.mlp).ready()
    async with client(running) as http:
        load = Load(http)
        running_load = asyncio.create_task(load.run(16))
        await load.until(200)
        running.terminate()
        await running_load
    assert {answered.status for answered in load.answers} == {200}
    assert "close" in {answered.headers.get("Connection") for answered in load.answers}
    assert running.ended() == 0
    assert [line["event"] for line in running.lines[-3:]] == ["draining", "drained", "stopped"]
    assert running.lines[-2]["serving"] == 0


async def test_f44_a_long_request_is_answered_after_sigterm_and_newcomers_are_still_served(
    start: Start,
) -> None:
    running = start(models.counter, drain_s=60, settle_s=0.01, batching={"max_batch_size": 1}).ready()
    async with client(running) as http:
        long = asyncio.create_task(http.infer(request(values("n", "INT64", [3_000_000]))))
        async with asyncio.timeout(60):
            while (await http.scrape())("in_flight") < 1:
                pass
        running.terminate()
        running.until("draining")
        assert (await http.get("/v2/health/ready")).status == 503
        assert (await http.get("/v2/health/live")).status == 200
        late = asyncio.create_task(http.infer(request(values("n", "INT64", [4]))))
        assert (await long).data() == [3_000_000]
        assert (await late).data() == [4]
    assert running.ended() == 0


async def test_f44_a_request_longer_than_the_grace_does_not_keep_it(start: Start) -> None:
    running = start(models.counter, drain_s=0.05, batching={"max_batch_size": 1}).ready()
    async with client(running) as http:
        endless = asyncio.create_task(http.infer(request(values("n", "INT64", [10**12]))))
        async with asyncio.timeout(60):
            while (await http.scrape())("in_flight") < 1:
                pass
        running.terminate()
        assert await asyncio.to_thread(running.ended) == 0
        await asyncio.gather(endless, return_exceptions=True)


async def test_two_replicas_of_one_artifact_answer_alike(tmp_path: Path) -> None:
    made = models.mlp(tmp_path / "m.onnx")
    answers = []
    for name in ("a", "b"):
        with replica(configuration(made, replica=name), tmp_path) as running:
            async with client(running.ready()) as http:
                answers.append((await http.infer(ROW)).data())
    assert answers[0] == answers[1]


def test_a_replica_imports_no_django_and_no_runtime_before_it_must() -> None:
    code = (
        "import sys; import deployments.stacks.fastapi.replica; "
        "heavy = {'django', 'rest_framework', 'celery', 'onnxruntime', 'openvino', 'psycopg'}; "
        "print(*sorted(heavy & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, check=True, text=True
    )
    assert told.stdout.split() == []


def test_every_log_line_names_the_replica(start: Start) -> None:
    running = start(models.mlp).ready()
    running.terminate()
    assert running.ended() == 0
    for line in running.lines:
        assert (line["deployment"], line["revision"], line["replica"]) == ("d1", "3", "d1-3-0")
        assert json.dumps(line)
