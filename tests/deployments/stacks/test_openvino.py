"""A replica on another interpreter, with another runtime: to its clients it is as any other."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from deployments import stacks
from tests.toolchains import as_openvino, interpreter

from . import models
from .conftest import Start
from .replicas import Client, Running, client, configuration, replica, request, values

ROWS = np.random.default_rng(0).standard_normal((6, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def onnx_mlp(tmp_path_factory: pytest.TempPathFactory) -> models.Made:
    return models.mlp(tmp_path_factory.mktemp("onnx") / "m.onnx")


@pytest.fixture(scope="module")
def running(onnx_mlp: models.Made) -> Iterator[Running]:
    folder = onnx_mlp.path.parent
    path = as_openvino(onnx_mlp.path, signature=onnx_mlp.signature, folder=folder)
    made = models.Made(path=path, signature=onnx_mlp.signature)
    batching = {"max_batch_size": 8, "preferred_batch_size": [6], "max_queue_delay_microseconds": 1_000_000}
    config = configuration(made, model_format="openvino", batching=batching)
    with replica(config, folder) as started:
        yield started.ready()


@pytest.fixture
async def http(running: Running) -> AsyncIterator[Client]:
    async with client(running) as opened:
        yield opened


def expected(onnx_mlp: models.Made) -> Any:
    return onnxruntime.InferenceSession(str(onnx_mlp.path)).run(None, {"x": ROWS})[0]


async def test_it_runs_on_the_toolchain_and_answers_single_requests_in_a_batch_as_onnx_runtime_does(
    running: Running, http: Client, onnx_mlp: models.Made
) -> None:
    assert Path(running.process.args[0]) == interpreter("openvino")  # type: ignore[index, arg-type]
    before = await http.scrape()
    asked = [http.infer(request(values("x", "FP32", row.tolist(), shape=[1, 16]))) for row in ROWS]
    answered = await asyncio.gather(*asked)
    np.testing.assert_allclose([one.data() for one in answered], expected(onnx_mlp), rtol=1e-4, atol=1e-5)
    after = await http.scrape()
    counted = [after(name) - before(name) for name in ("batch_size_sum", "batch_size_count")]
    assert counted == [6, 1]


async def test_raw_bytes_go_in_and_come_out(http: Client, onnx_mlp: models.Made) -> None:
    raw = ROWS.tobytes()
    described = {
        "name": "x",
        "datatype": "FP32",
        "shape": [6, 16],
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps(
        {"inputs": [described], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    answered = await http.send("POST", "/v2/models/m/infer", data=head + raw, headers=headers)
    length = int(answered.headers["Inference-Header-Content-Length"])
    numbers = np.frombuffer(answered.body[length:], np.float32).reshape(6, 4)
    np.testing.assert_allclose(numbers, expected(onnx_mlp), rtol=1e-4, atol=1e-5)


async def test_it_describes_itself_and_speaks_every_word_its_stack_claims(http: Client) -> None:
    assert (await http.get("/v2/models/m")).json["platform"] == "openvino_ir"
    await http.infer(request(values("x", "FP32", ROWS.ravel().tolist(), shape=[6, 16])))
    stack = stacks.load("fastapi")
    assert stack.conformance((await http.get("/metrics")).body.decode()) == set(stack.metrics)


def test_a_file_of_another_format_ends_it_with_the_reason_in_the_log(start: Start) -> None:
    interpreter("openvino")
    running = start(models.mlp, model_format="openvino")
    assert "The archive cannot be read" in running.until("cannot_serve")["error"]
    assert running.ended() == 1


def test_no_replica_is_started_without_the_toolchain(tmp_path: Path) -> None:
    stack = stacks.load("fastapi")
    with pytest.raises(LookupError, match="make toolchains TOOLCHAINS=openvino"):
        stack.start_command(Path("/x"), artifact_format="openvino", toolchains=tmp_path)
