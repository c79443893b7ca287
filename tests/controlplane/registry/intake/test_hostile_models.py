"""Models made to hurt: every row of the measured table and of BADINPUT's uploads gets its own refusal.

Each is looked at in the real sandbox; a refusal leaves nothing behind and takes no more than the limits allow.
"""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.controlplane.registry.intake import models
from tests.controlplane.registry.intake.models import external, graph_of, mlp, model, with_weight

GIB = 1024**3


def changed(change) -> bytes:
    proto = mlp()
    change(proto)
    return proto.SerializeToString()


def named_node(name: str) -> bytes:
    return changed(lambda proto: setattr(proto.graph.node[0], "name", name))


def long_string_input(name: str) -> bytes:
    proto = mlp()
    proto.graph.node[0].input[0] = proto.graph.input[0].name = name
    return proto.SerializeToString()


def opset(version: int, domain: str = "") -> bytes:
    proto = mlp()
    proto.opset_import[0].version, proto.opset_import[0].domain = version, domain
    return proto.SerializeToString()


def operator(domain: str, op_type: str) -> bytes:
    proto = mlp()
    if domain:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    proto.graph.node[1].domain, proto.graph.node[1].op_type = domain, op_type
    return proto.SerializeToString()


def no_implementation() -> bytes:
    """Valid ONNX, of an operator set that ONNX Runtime has in part."""
    nodes = [helper.make_node("Bernoulli", ["x"], ["y"])]
    return model(graph_of(nodes, output_shape=["batch", 4]), opset=22).SerializeToString()


def cycle() -> bytes:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    return model(graph_of([*nodes, helper.make_node("Relu", ["a"], ["y"])])).SerializeToString()


def twice(field: bytes) -> bytes:
    return mlp().SerializeToString() + field


def sequence_output() -> bytes:
    proto = mlp()
    proto.graph.output[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    return proto.SerializeToString()


def shapeless(port: str) -> bytes:
    return changed(lambda proto: getattr(proto.graph, port)[0].type.tensor_type.ClearField("shape"))


def inputless() -> bytes:
    nodes = [helper.make_node("Identity", ["w"], ["y"])]
    weight = numpy_helper.from_array(np.ones((2, 2), dtype=np.float32), "w")
    return model(graph_of(nodes, inputs={}, initializers=[weight])).SerializeToString()


def fails_when_run() -> bytes:
    """Row 9 of an input of one row: no checker looks."""
    nodes = [helper.make_node("Gather", ["x", "i"], ["y"], axis=0)]
    graph = graph_of(nodes, inputs={"x": [1, 4]}, output_shape=[1, 4], initializers=[models.ints("i", 9)])
    return model(graph).SerializeToString()


def many_nodes(count: int) -> bytes:
    """Two bytes each, hundreds in memory."""
    body = b"\x0a\x00" * count
    return b"\x08\x0a\x3a" + _varint(len(body)) + body


def deep_messages(depth: int) -> bytes:
    """A type of a sequence of a sequence of ..."""
    inner = b""
    for _ in range(depth):
        inner = (
            b"\x22"
            + _varint(len(inner) + len(_varint(len(inner))) + 1)
            + b"\x0a"
            + _varint(len(inner))
            + inner
        )
    value = b"\x0a\x01x\x12" + _varint(len(inner)) + inner
    graph = b"\x5a" + _varint(len(value)) + value
    return b"\x08\x0a\x3a" + _varint(len(graph)) + graph


def deep_graphs(depth: int) -> bytes:
    """Deeper than protobuf's own library can write."""
    graph = b""
    for _ in range(depth):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # graph in an attribute in a node in a graph
            graph = tag + _varint(len(graph)) + graph
    return b"\x08\x0a\x3a" + _varint(len(graph)) + graph


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


HOSTILE = {
    # what a tensor declares
    "dims overflow 31": (with_weight(dims=[2**31, 2**31]), "bad_tensor", "“w”"),
    "dims overflow 32": (with_weight(dims=[2**32, 2**32]), "bad_tensor", "“w”"),
    "dims overflow to zero": (with_weight(dims=[2**32, 2**32, 2**32]), "bad_tensor", "“w”"),
    "negative dim": (with_weight(dims=[-4, -3]), "bad_tensor", "negative"),
    "100 dims": (with_weight(dims=[1] * 100), "bad_tensor", "dimensions"),
    "too little data": (with_weight(raw_data=b"\0" * 47), "bad_tensor", "47"),
    "too much data": (with_weight(raw_data=b"\0" * 4096), "bad_tensor", "4,096"),
    "no data": (with_weight(raw_data=None), "bad_tensor", "holds 0"),
    "unknown type": (with_weight(data_type=77), "bad_tensor", "77"),
    "undefined type": (with_weight(data_type=0), "bad_tensor", "type"),
    "values twice": (with_weight(float_data=[1.0] * 12), "bad_tensor", "twice"),
    "values of another type": (with_weight(raw_data=None, int64_data=[1] * 12), "bad_tensor", "int64_data"),
    # external data without an archive
    "external": (external(location="w.bin").SerializeToString(), "external_data", "zip archive"),
    "external, parent": (external(location="../../etc/passwd").SerializeToString(), "external_data", "“w”"),
    "external, key": (
        external(location="w", __class__="x").SerializeToString(),
        "external_data",
        "__class__",
    ),
    "external, negative": (external(location="w", offset="-1").SerializeToString(), "external_data", "-1"),
    "external, no place": (external().SerializeToString(), "external_data", "which file"),
    "external, inside too": (
        with_weight(data_location=TensorProto.EXTERNAL),
        "external_data",
        "“w”",
    ),
    # what is computed from constants
    "ConstantOfShape": (models.constant_of_shape(2**29), "resource_limit", "2,048 MiB"),
    "ConstantOfShape, node": (
        models.constant_node_of_shape(2**20, 2**20),
        "resource_limit",
        "ConstantOfShape",
    ),
    "ConstantOfShape, hidden": (models.hidden_constant_of_shape(), "resource_limit", ""),
    "Expand": (models.expand(), "resource_limit", "Expand"),
    "Tile": (models.tile(), "resource_limit", "Tile"),
    "Range": (models.range_(), "resource_limit", "Range"),
    "EyeLike": (models.eye_like(), "resource_limit", "MiB"),
    "sparse": (models.sparse(2**15, 2**14), "resource_limit", "sparse"),
    "sparse, overflow": (models.sparse(2**40, 2**40), "resource_limit", "sparse"),
    "DepthToSpace": (models.depth_to_space(2**32), "resource_limit", "block size"),
    "Loop, 2^62 trips": (models.loop(trips=2**62), "resource_limit", "Loop"),
    "Loop, no end": (models.loop(trips=None), "resource_limit", "Loop"),
    # structure
    "function chain": (models.function_chain(3000), "too_complex", "deep"),
    "recursive function": (models.function_chain(3, cyclic=True), "too_complex", "itself"),
    "function bomb": (models.functions_doubling(40), "too_complex", "unfold"),
    "nested graphs": (deep_graphs(33), "too_complex", "nested"),
    "nested messages": (deep_messages(200), "too_complex", "nested"),
    "a million nodes": (many_nodes(1_000_000), "too_complex", "nodes"),
    "cycle": (cycle(), "invalid_onnx", ""),
    "unknown operator": (operator("", "Frobnicate"), "invalid_onnx", "Frobnicate"),
    "no implementation": (no_implementation(), "unsupported_operator", "RandomUniformLike"),
    "custom domain": (operator("evil.corp", "Run"), "unsupported_operator", "evil.corp"),
    "engine inside": (operator("com.microsoft", "EPContext"), "engine_refused", "EPContext"),
    "opset 9999": (opset(9999), "unsupported_opset", "9999"),
    "opset 1": (opset(1), "unsupported_opset", "opset 1"),
    "two graphs": (twice(b"\x3a\x00"), "not_onnx", "twice"),
    "group": (twice(b"\x0b\x0c"), "not_onnx", "groups"),
    "trailing bytes": (twice(b"\xff" * 30), "not_onnx", ""),
    "no graph": (b"\x08\x0a\x12\x05tests", "not_onnx", "no graph"),
    # names
    "name of 1 MB": (named_node("n" * 2**20), "bad_name", "1,048,576"),
    "name with newline": (named_node("a\nb"), "bad_name", "\\n"),
    "name with NUL": (named_node("a\0b"), "bad_name", "\\x00"),
    "name with ANSI": (named_node("\x1b[31mred"), "bad_name", "\\x1b"),
    "name with override": (named_node("\u202eevil"), "bad_name", "\\u202e"),
    "input name of 1 MB": (long_string_input("n" * 2**20), "bad_name", "at most"),
    "documentation of 2 MB": (
        changed(lambda p: setattr(p, "doc_string", "d" * 2**21)),
        "bad_name",
        "doc_string",
    ),
    # signatures
    "sequence output": (sequence_output(), "unsupported_signature", "sequence"),
    "no shape of input": (shapeless("input"), "unsupported_signature", "“x” declares no shape"),
    "no shape of output": (shapeless("output"), "unsupported_signature", "“y” declares no shape"),
    "no input": (inputless(), "unsupported_signature", "0 inputs"),
    "fails when run": (fails_when_run(), "cannot_run", ""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_gets_its_own_refusal(refused, name):
    body, code, word = HOSTILE[name]
    error = refused(body)
    assert (error.code, word in error.detail) == (code, True), f"{error.code}: {error.detail}"


def test_a_loop_whose_length_only_running_tells_is_stopped_at_the_time_limit(refused, bounds):
    error = refused(models.hidden_loop(), bounds=replace(bounds, wall_s=3))
    assert error.code == "resource_limit"
    assert "“run”" in error.detail or "“load”" in error.detail


def test_a_model_larger_than_the_memory_allowed_is_refused_and_the_parent_lives(refused, bounds):
    weights = np.ones((2048, 2048), dtype=np.float32)
    error = refused(mlp(weights=weights).SerializeToString(), bounds=replace(bounds, memory_bytes=0))
    assert error.code in {"resource_limit", "unreadable"}


def test_markup_in_names_is_only_text(look):
    proto = mlp()
    proto.graph.node[0].input[0] = proto.graph.input[0].name = "<script>alert(1)</script>"
    assert look(proto.SerializeToString())["signature"]["inputs"][0]["name"] == "<script>alert(1)</script>"


def test_an_unused_opset_of_another_domain_does_no_harm(look):
    proto = mlp()
    proto.opset_import.append(helper.make_opsetid("com.example", 3))
    assert look(proto.SerializeToString())["summary"]["opset"]["com.example"] == 3


def test_the_files_are_as_small_as_the_measured_ones(look):
    """The table would prove little if its bombs were large."""
    assert max(len(body) for body, code, _ in HOSTILE.values() if code == "resource_limit") < 1000


def test_onnx_itself_accepts_some_of_what_is_refused_here():
    """The reason for the own walk; when this fails, onnx has learned."""
    onnx.checker.check_model(onnx.load_from_string(models.constant_of_shape(2**29)))
    onnx.checker.check_model(onnx.load_from_string(models.loop(trips=2**62)))
