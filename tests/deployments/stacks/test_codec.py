"""Requests and answers of the Open Inference Protocol, as bytes."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from controlplane.core.errors import InvalidInput
from deployments.stacks.fastapi.config import Signature
from deployments.stacks.fastapi.protocol import Answer, Codec, Request
from deployments.stacks.fastapi.tensors import DTYPES

from .models import tensor

NUMBERS = [dtype for dtype in DTYPES if dtype != "BYTES"]
FINITE = {"allow_nan": False, "allow_infinity": False}


def codec(dtype: str = "FP32", shape: tuple[int | str, ...] = ("batch", "n")) -> Codec:
    signature = {
        "inputs": [tensor("x", dtype, list(shape))],
        "outputs": [tensor("y", dtype, list(shape))],
        "batch_axis": 0,
    }
    return Codec(model_name="m", model_version="1", signature=Signature.model_validate(signature))


def body(data: Any, *, dtype: str = "FP32", shape: list[int], **more: Any) -> bytes:
    return json.dumps(
        {"inputs": [{"name": "x", "datatype": dtype, "shape": shape, "data": data}], **more}
    ).encode()


def parsed(one: Codec, content: bytes) -> Request:
    return one.parse(content, header_length=None)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, np.ndarray[Any, Any]]:
    dtype = draw(st.sampled_from(NUMBERS))
    shape = draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=5))
    elements = FINITE if DTYPES[dtype].kind == "f" else None
    return dtype, draw(arrays.arrays(DTYPES[dtype], shape, elements=elements))


@given(tensors(), st.booleans())
def test_json_tensors_come_in_and_go_out_unchanged(one: tuple[str, Any], nested: bool) -> None:
    dtype, array = one
    data = array.tolist() if nested else array.reshape(-1).tolist()
    request = parsed(codec(dtype), body(data, dtype=dtype, shape=list(array.shape), id="a"))
    assert request.rows == array.shape[0]
    np.testing.assert_array_equal(request.feeds["x"], array)
    answer = codec(dtype).answer(request, [array])
    assert answer.header_length is None
    document = json.loads(answer.body)
    (output,) = document.pop("outputs")
    assert document == {"model_name": "m", "model_version": "1", "id": "a"}
    data = output.pop("data")
    assert output == {"name": "y", "datatype": dtype, "shape": list(array.shape)}
    np.testing.assert_array_equal(np.array(data, DTYPES[dtype]).reshape(array.shape), array)


@given(tensors())
def test_binary_tensors_come_in_and_go_out_bit_by_bit(one: tuple[str, Any]) -> None:
    dtype, array = one
    raw = array.tobytes()
    described = {
        "name": "x", "datatype": dtype, "shape": list(array.shape), "parameters": {"binary_data_size": len(raw)},
    }  # fmt: skip
    head = json.dumps({"inputs": [described], "parameters": {"binary_data_output": True}}).encode()
    request = codec(dtype).parse(head + raw, header_length=len(head))
    assert request.feeds["x"].tobytes() == raw
    answer = codec(dtype).answer(request, [array])
    assert _binary_output(answer) == raw


def _binary_output(answer: Answer) -> bytes:
    assert answer.header_length is not None
    (output,) = json.loads(answer.body[: answer.header_length])["outputs"]
    assert "data" not in output
    blob = answer.body[answer.header_length :]
    assert output["parameters"] == {"binary_data_size": len(blob)}
    return blob


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_texts_come_in_and_go_out_in_both_forms(texts: list[str]) -> None:
    shape = [len(texts), 1]
    request = parsed(codec("BYTES"), body(texts, dtype="BYTES", shape=shape))
    assert request.feeds["x"].reshape(-1).tolist() == texts
    encoded = [text.encode() for text in texts]
    raw = b"".join(struct.pack("<I", len(one)) + one for one in encoded)
    described = {
        "name": "x",
        "datatype": "BYTES",
        "shape": shape,
        "parameters": {"binary_data_size": len(raw)},
    }
    wanted = [{"name": "y", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [described], "outputs": wanted}).encode()
    request = codec("BYTES").parse(head + raw, header_length=len(head))
    assert request.feeds["x"].reshape(-1).tolist() == texts
    assert _binary_output(codec("BYTES").answer(request, [request.feeds["x"]])) == raw


def test_a_nan_in_an_output_is_null_in_json_and_itself_in_binary() -> None:
    array = np.array([[np.nan, 1.0]], np.float32)
    request = parsed(codec(), body([0, 0], shape=[1, 2]))
    assert json.loads(codec().answer(request, [array]).body)["outputs"][0]["data"] == [None, 1.0]
    request = parsed(codec(), body([0, 0], shape=[1, 2], parameters={"binary_data_output": True}))
    assert np.isnan(np.frombuffer(_binary_output(codec().answer(request, [array])), np.float32)[0])


def test_only_the_outputs_asked_for_are_answered_in_their_order() -> None:
    signature = Signature.model_validate(
        {"inputs": [tensor("x", "FP32", ["b", 1])], "outputs": [tensor(n, "FP32", ["b"]) for n in "uvw"]}
    )
    three = Codec(model_name="m", model_version="1", signature=signature)
    request = parsed(three, body([0], shape=[1, 1], outputs=[{"name": "w"}, {"name": "u"}]))
    answer = three.answer(request, [np.array([number], np.float32) for number in (1, 2, 3)])
    assert [(one["name"], one["data"]) for one in json.loads(answer.body)["outputs"]] == [
        ("w", [3.0]),
        ("u", [1.0]),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()),
    st.none() | st.integers(0, 300),
)
def test_whatever_the_bytes_are_the_answer_is_a_refusal(content: bytes, header_length: int | None) -> None:
    with pytest.raises(InvalidInput):
        codec().parse(content, header_length=header_length)


PARTS = ["name", "datatype", "shape", "data", "parameters"]


@given(st.sampled_from(PARTS), JSON)
def test_any_value_in_any_place_of_a_request_is_taken_or_refused(part: str, value: Any) -> None:
    good = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    content = json.dumps({"inputs": [good | {part: value}]}).encode()
    try:
        request = parsed(codec(), content)
    except InvalidInput:
        return
    assert request.feeds["x"].shape == (1, 2)
