"""A running replica speaks the Open Inference Protocol v2, and refuses the rest in its words."""

import asyncio
import gzip
import hashlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import pytest

from . import models
from .conftest import Start
from .replicas import Client, Running, client, request, values

INFER = "/v2/models/m/infer"
ROW = [round(number * 0.1, 3) for number in range(16)]
GOOD = request(values("x", "FP32", ROW, shape=[1, 16]))


def expected(running: Running, rows: list[list[float]], folder: Any) -> Any:
    session = onnxruntime.InferenceSession(str(models.mlp(folder / "same.onnx").path))
    return session.run(None, {"x": np.array(rows, np.float32)})[0]


async def test_the_server_and_the_model_describe_themselves(mlp: Client) -> None:
    assert "binary_tensor_data" in (await mlp.get("/v2")).json["extensions"]
    metadata = (await mlp.get("/v2/models/m")).json
    assert metadata == {
        "name": "m",
        "versions": ["7"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }
    assert (await mlp.get("/v2/models/m/versions/7")).json == metadata


@pytest.mark.parametrize(
    "path", ["/v2/health/live", "/v2/health/ready", "/v2/models/m/ready", "/v2/models/m/versions/7/ready"]
)
async def test_a_ready_replica_says_so_everywhere(mlp: Client, path: str) -> None:
    assert (await mlp.get(path)).status == 200


def test_an_answer_leaves_in_one_piece(mlp_replica: Running) -> None:
    """A replica that is killed between the head and the body of an answer would cost that request."""
    body = json.dumps(GOOD).encode()
    asked = b"POST %s HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n" % (INFER.encode(), len(body)) + body
    with socket.create_connection(("127.0.0.1", mlp_replica.port), timeout=10) as line:
        for _ in range(200):
            line.sendall(asked)
            head, _, rest = line.recv(65536).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert json.loads(rest)["model_name"] == "m"


async def test_json_in_json_out_echoes_the_id(mlp: Client, mlp_replica: Running, tmp_path: Any) -> None:
    answered = await mlp.infer(GOOD | {"id": "abc"})
    assert answered.status == 200
    assert (answered.json["id"], answered.json["model_name"], answered.json["model_version"]) == (
        "abc",
        "m",
        "7",
    )
    np.testing.assert_allclose(answered.data(), expected(mlp_replica, [ROW], tmp_path)[0], rtol=1e-5)


async def test_the_version_in_the_path_may_be_named(mlp: Client) -> None:
    assert (await mlp.infer(GOOD, path="/v2/models/m/versions/7/infer")).status == 200


async def test_nested_data_is_the_same_as_flat(mlp: Client) -> None:
    nested = request(values("x", "FP32", [ROW, ROW], shape=[2, 16]))
    flat = request(values("x", "FP32", ROW + ROW, shape=[2, 16]))
    assert (await mlp.infer(nested)).data() == (await mlp.infer(flat)).data()


async def test_binary_in_binary_out_gives_the_same_numbers_as_json(mlp: Client) -> None:
    raw = np.array([ROW], np.float32).tobytes()
    described = {
        "name": "x",
        "datatype": "FP32",
        "shape": [1, 16],
        "parameters": {"binary_data_size": len(raw)},
    }
    wanted = [{"name": "y", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [described], "outputs": wanted}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    answered = await mlp.send("POST", INFER, data=head + raw, headers=headers)
    assert answered.status == 200
    length = int(answered.headers["Inference-Header-Content-Length"])
    (output,) = json.loads(answered.body[:length])["outputs"]
    assert output["parameters"]["binary_data_size"] == len(answered.body) - length
    numbers = np.frombuffer(answered.body[length:], np.float32)
    np.testing.assert_allclose(numbers, (await mlp.infer(GOOD)).data(), rtol=1e-6)


async def test_every_dtype_makes_the_round_trip(start: Start) -> None:
    samples: dict[str, list[Any]] = {
        "BOOL": [True, False], "INT8": [-128, 127], "INT16": [-(2**15), 2**15 - 1], "INT32": [-(2**31), 2**31 - 1],
        "INT64": [-(2**63), 2**63 - 1], "UINT8": [0, 255], "UINT16": [0, 2**16 - 1], "UINT32": [0, 2**32 - 1],
        "UINT64": [0, 2**64 - 1], "FP16": [0.5, -2.0], "FP32": [0.25, -1e30], "FP64": [0.1, -1e300],
        "BYTES": ["", "ключ\x00"],
    }  # fmt: skip
    tensors = [values(f"in_{dtype}", dtype, data, shape=[1, 2]) for dtype, data in samples.items()]
    async with client(start(models.every_dtype).ready()) as http:
        answered = await http.infer(request(*tensors))
    assert answered.status == 200
    for dtype, data in samples.items():
        assert np.array_equal(
            np.array(answered.data(f"out_{dtype}")), np.array(data, np.float32 if dtype == "FP32" else None)
        ) or answered.data(f"out_{dtype}") == pytest.approx(data)


async def test_a_model_without_batch_axis_takes_its_own_shape(start: Start) -> None:
    async with client(start(models.fixed).ready()) as http:
        answered = await http.infer(request(values("x", "FP32", [1, 2, 3, 4.5])))
        assert answered.data() == [2, 4, 6, 9]
        assert (await http.infer(request(values("x", "FP32", [1, 2])))).status == 400


@dataclass(frozen=True, kw_only=True)
class Bad:
    """One bad request and what it must get."""

    status: int
    code: str
    body: Any = None
    path: str = INFER
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def tensor(**change: Any) -> Any:
    return request(values("x", "FP32", ROW, shape=[1, 16]) | change)


def binary(size: Any, raw: bytes, *, length: str | None = None, **change: Any) -> dict[str, Any]:
    described = {"name": "x", "datatype": "FP32", "shape": [1, 16], "parameters": {"binary_data_size": size}}
    head = json.dumps(request(described | change)).encode()
    return {"body": head + raw, "headers": {"Inference-Header-Content-Length": length or str(len(head))}}


BAD = {
    "no body": Bad(status=400, code="invalid_request", body=b""),
    "truncated": Bad(status=400, code="invalid_request", body=b'{"inputs": ['),
    "trailing comma": Bad(status=400, code="invalid_request", body=b'{"inputs": [],}'),
    "byte order mark": Bad(status=400, code="invalid_request", body=b"\xef\xbb\xbf{}"),
    "UTF-16": Bad(status=400, code="invalid_request", body="{}".encode("utf-16")),
    "NaN": Bad(status=400, code="invalid_request", body=json.dumps(tensor(data=[float("nan")] * 16)).encode()),
    "infinite literal": Bad(status=400, code="invalid_request", body=b'{"inputs": 1e400}'),
    "5,000 digits": Bad(status=400, code="invalid_request", body=b'{"inputs": ' + b"9" * 5000 + b"}"),
    "deep arrays": Bad(status=400, code="invalid_request", body=b"[" * 90_000),
    "deep closed arrays": Bad(status=400, code="invalid_request", body=b"[" * 40_000 + b"]" * 40_000),
    "deep data": Bad(status=400, code="invalid_tensor", body=tensor(data=json.loads("[" * 900 + "]" * 900))),
    "deep datatype": Bad(status=400, code="invalid_tensor", body=tensor(datatype=json.loads("[" * 900 + "]" * 900))),
    "lone surrogate": Bad(status=400, code="invalid_request", body=b'{"id": "\\ud800"}'),
    "a list": Bad(status=400, code="invalid_request", body=[]),
    "null": Bad(status=400, code="invalid_request", body=None),
    "id is a number": Bad(status=400, code="invalid_request", body=GOOD | {"id": 5}),
    "no inputs": Bad(status=400, code="invalid_request", body={}),
    "empty inputs": Bad(status=400, code="invalid_tensor", body={"inputs": []}),
    "input without name": Bad(status=400, code="invalid_request", body={"inputs": [{}]}),
    "unknown input": Bad(status=400, code="invalid_tensor", body=tensor(name="z")),
    "input twice": Bad(status=400, code="invalid_tensor", body={"inputs": GOOD["inputs"] * 2}),
    "unknown output": Bad(status=400, code="invalid_tensor", body=GOOD | {"outputs": [{"name": "z"}]}),
    "output twice": Bad(status=400, code="invalid_request", body=GOOD | {"outputs": [{"name": "y"}] * 2}),
    "outputs a text": Bad(status=400, code="invalid_request", body=GOOD | {"outputs": "y"}),
    "wrong dtype": Bad(status=400, code="invalid_tensor", body=tensor(datatype="INT64")),
    "no dtype": Bad(status=400, code="invalid_tensor", body=tensor(datatype=None)),
    "wrong shape": Bad(status=400, code="invalid_tensor", body=tensor(shape=[1, 15])),
    "too few dimensions": Bad(status=400, code="invalid_tensor", body=tensor(shape=[16])),
    "no rows": Bad(status=400, code="invalid_tensor", body=tensor(shape=[0, 16], data=[])),
    "negative rows": Bad(status=400, code="invalid_tensor", body=tensor(shape=[-1, 16])),
    "rows are true": Bad(status=400, code="invalid_tensor", body=tensor(shape=[True, 16])),
    "overflowing rows": Bad(status=400, code="invalid_tensor", body=tensor(shape=[2**40, 16])),
    "many rows declared": Bad(status=400, code="invalid_tensor", body=tensor(shape=[2**30, 16])),
    "shape is a text": Bad(status=400, code="invalid_tensor", body=tensor(shape="1,16")),
    "too little data": Bad(status=400, code="invalid_tensor", body=tensor(data=ROW[:-1])),
    "too much data": Bad(status=400, code="invalid_tensor", body=tensor(data=[*ROW, 1.0])),
    "ragged data": Bad(status=400, code="invalid_tensor", body=tensor(shape=[2, 16], data=[ROW, ROW[:-1]])),
    "no data": Bad(status=400, code="invalid_tensor", body=tensor(data=None)),
    "texts as numbers": Bad(status=400, code="invalid_tensor", body=tensor(data=["1.0"] * 16)),
    "one long text": Bad(status=400, code="invalid_tensor", body=tensor(data=[1.0] * 15 + ["x" * 50_000])),
    "true as number": Bad(status=400, code="invalid_tensor", body=tensor(data=[True] * 16)),
    "null as number": Bad(status=400, code="invalid_tensor", body=tensor(data=[None] * 16)),
    "beyond FP32": Bad(status=400, code="invalid_tensor", body=tensor(data=[1e39] * 16)),
    "more rows than a batch": Bad(status=400, code="batch_too_large", body=tensor(shape=[9, 16], data=ROW * 9)),
    "parameters a list": Bad(status=400, code="invalid_request", body=GOOD | {"parameters": []}),
    "binary flag a number": Bad(
        status=400, code="invalid_request", body=GOOD | {"parameters": {"binary_data_output": 1}}
    ),
    "shared memory": Bad(
        status=400, code="invalid_request", body=tensor(parameters={"shared_memory_region": "/etc/passwd"})
    ),
    "binary too short": Bad(status=400, code="invalid_tensor", **binary(64, b"\0" * 63)),
    "binary left over": Bad(status=400, code="invalid_request", **binary(64, b"\0" * 65)),
    "binary of another size": Bad(status=400, code="invalid_tensor", **binary(60, b"\0" * 60)),
    "negative binary size": Bad(status=400, code="invalid_tensor", **binary(-1, b"\0" * 64)),
    "binary size a text": Bad(status=400, code="invalid_tensor", **binary("64", b"\0" * 64)),
    "binary and data": Bad(status=400, code="invalid_tensor", **binary(64, b"\0" * 64, data=ROW)),
    "header length beyond": Bad(status=400, code="invalid_request", **binary(64, b"\0" * 64, length="99999")),
    "header length a text": Bad(status=400, code="invalid_header", **binary(64, b"\0" * 64, length="abc")),
    "header length negative": Bad(status=400, code="invalid_header", **binary(64, b"\0" * 64, length="-5")),
    "too large": Bad(status=413, code="body_too_large", body=b" " * 100_001),
    "text": Bad(status=415, code="unsupported_media_type", body=GOOD, headers={"Content-Type": "text/plain"}),
    "form": Bad(
        status=415, code="unsupported_media_type", body=GOOD,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    ),
    "charset": Bad(
        status=415, code="unsupported_charset", body=GOOD,
        headers={"Content-Type": "application/json; charset=utf-16"},
    ),
    "compressed": Bad(
        status=415, code="unsupported_encoding", body=gzip.compress(b" " * 10_000),
        headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ),
    "unknown model": Bad(status=404, code="unknown_model", path="/v2/models/other/infer", body=GOOD),
    "unknown version": Bad(status=404, code="unknown_model", path="/v2/models/m/versions/8/infer", body=GOOD),
    "climbing path": Bad(status=404, code="not_found", path="/v2/models/%2e%2e%2fm/infer", body=GOOD),
    "no such path": Bad(status=404, code="not_found", path="/v1/models/m:predict", body=GOOD),
    "metadata of another": Bad(status=404, code="unknown_model", method="GET", path="/v2/models/other"),
    "readiness of another": Bad(status=404, code="unknown_model", method="GET", path="/v2/models/other/ready"),
    "GET": Bad(status=405, code="method_not_allowed", method="GET"),
    "PUT": Bad(status=405, code="method_not_allowed", method="PUT", body=GOOD),
    "TRACE": Bad(status=405, code="method_not_allowed", method="TRACE"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_a_bad_request_gets_a_refusal_with_a_code_and_the_next_one_is_served(
    mlp: Client, bad: Bad
) -> None:
    answered = await mlp.send(bad.method, bad.path, data=bad.content, headers=bad.headers)
    assert (answered.status, answered.json["code"]) == (bad.status, bad.code)
    assert answered.headers["Content-Type"] == "application/problem+json"
    assert answered.json["error"]
    assert answered.json["status"] == bad.status
    assert len(answered.body) < 2000
    assert (await mlp.infer(GOOD)).status == 200


async def test_an_undeclared_length_is_cut_off_at_the_limit(mlp: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 10_000

    answered = await mlp.send("POST", INFER, data=chunks(), headers={"Content-Type": "application/json"})
    assert (answered.status, answered.json["code"]) == (413, "body_too_large")


async def test_no_content_type_is_taken_as_the_protocols_clients_send_it(mlp: Client) -> None:
    content = json.dumps(GOOD).encode()
    answered = await mlp.send("POST", INFER, data=content, skip_auto_headers=["Content-Type"])
    assert answered.status == 200


async def test_the_api_key_opens_inference_and_nothing_else_needs_it(start: Start) -> None:
    key = "s3cret-ключ"
    digest = hashlib.sha256(key.encode()).hexdigest()
    running = start(models.mlp, api_key_sha256=digest).ready()
    async with client(running) as http:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": digest}, {"Authorization": key}):
            answered = await http.send("POST", INFER, json=GOOD, headers=headers)
            assert (answered.status, answered.json["code"]) == (401, "invalid_api_key")
            assert answered.headers["WWW-Authenticate"] == "Bearer"
        assert (await http.send("POST", f"{INFER}?api_key={key}", json=GOOD)).status == 401
        for headers in (
            {"Authorization": f"Bearer {key}"},
            {"Authorization": f"bearer {key}"},
            {"X-API-Key": key},
        ):
            assert (await http.send("POST", INFER, json=GOOD, headers=headers)).status == 200
        for path in ("/v2/health/ready", "/v2/models/m", "/metrics"):
            assert (await http.get(path)).status == 200
        assert (await http.scrape()).errors() == {"unauthorized": 5}
    running.terminate()
    assert running.ended() == 0
    assert key not in json.dumps(running.lines, ensure_ascii=False)


async def test_a_failure_inside_the_model_is_a_counted_500_and_the_replica_lives(start: Start) -> None:
    running = start(models.table).ready()
    async with client(running) as http:
        answered = await http.infer(request(values("i", "INT64", [99])))
        assert (answered.status, answered.json["code"]) == (500, "inference_failed")
        assert "Gather" not in answered.json["error"]
        assert (await http.infer(request(values("i", "INT64", [3])))).data() == [30]
        page = await http.scrape()
        assert page.errors() == {"inference_failed": 1}
        assert (page("requests_total", "500"), page("requests_total", "200")) == (1, 1)
        assert page("latency_seconds_count") == 1
    assert "Gather" in running.until("inference_failed")["error"]


async def test_a_request_that_needs_more_memory_than_there_is_fails_alone(start: Start) -> None:
    running = start(models.zeros_sum).ready()
    async with client(running) as http:
        too_much = await http.infer(request(values("n", "INT64", [2**44])))
        assert too_much.status == 500
        assert too_much.json["code"] in {"inference_failed", "out_of_memory"}
        assert (await http.infer(request(values("n", "INT64", [10])))).data() == [0]
        assert (await http.scrape()).errors() == {"inference_failed": 1}


async def test_clients_that_never_finish_their_request_keep_nobody_waiting(
    mlp: Client, mlp_replica: Running
) -> None:
    unfinished = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    async with AsyncExitStack() as stack:
        for _ in range(200):
            _, writer = await asyncio.open_connection("127.0.0.1", mlp_replica.port)
            stack.callback(writer.close)
            writer.write(unfinished)
            await writer.drain()
        assert (await mlp.infer(GOOD)).status == 200
        assert (await mlp.scrape())("in_flight") == 0


async def test_bad_requests_are_counted_and_leave_no_traceback(start: Start) -> None:
    running = start(models.mlp).ready()
    async with client(running) as http:
        documents: tuple[Any, ...] = ({}, [], tensor(name="z"))
        for document in documents:
            assert (await http.infer(document)).status == 400
        page = await http.scrape()
        assert page.errors() == {"bad_request": 3}
        assert page("requests_total", "400") == 3
    running.terminate()
    assert running.ended() == 0
    assert {line["level"] for line in running.lines} == {"info"}
