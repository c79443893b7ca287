"""The parts around a build: what is known before it, what TensorRT says and how that is told, what it would misread."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from controlplane.core.errors import Unprocessable
from optimizer.techniques import technique
from optimizer.techniques.graph import read
from optimizer.techniques.port import Hardware, ModelSummary
from optimizer.techniques.tensorrt import backends, reasons, repairs, run, sizes
from optimizer.techniques.tensorrt.backends import Rtx, TensorRt
from optimizer.techniques.tensorrt.listening import Heard, Nesting
from optimizer.techniques.tensorrt.reasons import Complaint
from optimizer.techniques.tensorrt.technique import Compatibility, EngineParameters
from optimizer.workbench.journal import Journal
from optimizer.workbench.signature import Signature
from tests.optimizer import onnx_models

CHECKS = technique("tensorrt")


# What is known before anything is built.


def codes(signature: Any, summary: ModelSummary, **params: Any) -> list[str]:
    asked = CHECKS.parameters.model_validate(params)
    return [reason.code for reason in CHECKS.check(signature, summary, Hardware(), asked)]


def test_types_and_quantization_that_tensorrt_cannot_read_are_refused_before_a_job() -> None:
    plain = onnx_models.signature([("x", "FP32", ["batch", 4])], [("y", "FP32", ["batch"])])
    for dtype in ("BYTES", "FP64", "INT16"):
        other = onnx_models.signature([("x", dtype, ["batch", 4])], [("y", "FP32", ["batch"])])
        assert codes(other, ModelSummary()) == ["unsupported_dtype"]
    dynamic = ModelSummary(op_types={"DynamicQuantizeLinear": 2, "MatMulInteger": 2})
    assert codes(plain, dynamic) == ["quantized_for_cpu"]
    assert codes(plain, ModelSummary(op_types={"QuantizeLinear": 2, "DequantizeLinear": 4})) == []
    assert codes(plain, ModelSummary(), axes=["height=1/2/3"]) == ["unknown_axes"]


@pytest.mark.parametrize(("precision", "found"), [("fp32", ["unsupported_on_capability"]), ("fp16", [])])
def test_turing_multiplies_no_matrices_in_single_precision(precision: str, found: list[str]) -> None:
    summary = ModelSummary(precision=precision, op_types={"MatMul": 1})
    assert codes({}, summary, capabilities=["7.5", "8.0"]) == found
    assert codes({}, summary, capabilities=["8.0"]) == []
    assert codes({}, summary, capabilities=["7.5"], builder="tensorrt") == []


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({}, []),
        ({"capabilities": ["8.9", "9.0"]}, ["needs_tensorrt"]),
        ({"version_compatible": True}, ["needs_tensorrt"]),
        ({"hardware_compatibility": "ampere_plus"}, ["needs_tensorrt"]),
        ({"builder": "tensorrt"}, ["one_capability"]),
        ({"builder": "tensorrt", "capabilities": ["9.0"], "version_compatible": True}, []),
    ],
)
def test_what_only_one_of_the_two_builders_can_is_refused_of_the_other(params: Any, found: list[str]) -> None:
    assert codes({}, ModelSummary(), **params) == found


def test_the_builder_that_was_asked_for_is_used_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: object() if name == "tensorrt_rtx" else None)
    assert backends.here("rtx") == Rtx()
    with pytest.raises(Unprocessable) as caught:
        backends.here("tensorrt")
    assert caught.value.code == "no_toolchain"
    assert caught.value.title == "TensorRT is not installed on this worker."


@pytest.mark.parametrize("level", get_args(Compatibility.__value__))
def test_tensorrt_is_told_how_compatible_its_engine_shall_be(level: Compatibility) -> None:
    names = SimpleNamespace(NONE=0, AMPERE_PLUS=1, SAME_COMPUTE_CAPABILITY=2)
    config = SimpleNamespace()
    params = EngineParameters(builder="tensorrt", capabilities=("9.0",), hardware_compatibility=level)
    TensorRt().aim(SimpleNamespace(HardwareCompatibilityLevel=names), config, params)
    assert config.hardware_compatibility_level == getattr(names, level.upper())


sizes_in_order = st.lists(st.integers(1, 10**9 - 1), min_size=3, max_size=3).map(sorted)


@given(
    st.text(st.characters(exclude_characters="=", exclude_categories=["C", "Z"]), min_size=1, max_size=100),
    sizes_in_order,
)
def test_sizes_are_read_as_they_are_written(axis: str, three: list[int]) -> None:
    wanted = sizes.Range(least=three[0], tuned=three[1], most=three[2])
    assert sizes.Range.read(f"{axis}={wanted}") == (axis, wanted)


@given(sizes_in_order)
def test_sizes_that_do_not_rise_are_refused_by_name(three: list[int]) -> None:
    least, tuned, most = three
    for text in (f"n={most + 1}/{tuned}/{most}", f"n={least}/{most + 1}/{most}", "n=0/1/2", "n=1/2", "1/2/3"):
        with pytest.raises(ValueError, match=r"n: the sizes must rise|is not of the form"):
            sizes.Range.read(text)


def test_every_open_axis_has_a_range_that_suits_it() -> None:
    image, words = ["n", 3, "h", "w"], ["n", "length"]
    found = sizes.ranges([image, words], batched=True, asked=["w=64/64/128"])
    assert {axis: str(size) for axis, size in found.items()} == {
        "n": "1/8/32",
        "h": "32/224/640",
        "w": "64/64/128",
        "length": "1/64/512",
    }
    assert sizes.profile(image, found) == ([1, 3, 32, 64], [8, 3, 224, 64], [32, 3, 640, 128])


# What TensorRT says, and how it is told.

OF_BUILDER = {
    "unsupported_branch": "[graphScope.cpp::analyze::471] Error Code 2: Internal Error (Assertion tScope.getType() != "
    "ScopeType::kUNDEFINED failed.  In analyze at /_src/optimizer/common/graphScope.cpp:471)",
    "shape_input": "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Optimization profile 0 is missing "
    "values for shape input tensor shape. In validate at /_src/optimizer/api/network.cpp:4081)",
    "axes_contradict": "IBuilder::buildSerializedNetwork: Error Code 4: Internal Error (Profile kOPT values are not "
    "self-consistent. Dimensions with name ? must be equal. In operator() at /_src/runtime/core/shapeMachine.cpp:640)",
    "sizes_refused": "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Dimension mismatch for tensor x "
    "and profile 0. At dimension axis 1, profile has min=5 but tensor has 4. In validate at /_src/a.cpp:4054)",
    "unsupported_on_capability": "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:337: "
    "check_turing_op_compatibility] Cannot compile operation 'mm' for Turing (SM75): FP32 GEMM is not supported. In "
    "compileGraph at /_src/optimizer/myelin/codeGenerator.cpp:2012)",
    "workspace_too_small": "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([tactic.cpp:1676: run] "
    "Tactic Selection: no tactics to implement the operation within workspace limit. Consider increase the allowed "
    "workspace size if applicable. In compileGraph at /_src/optimizer/myelin/codeGenerator.cpp:2012)",
    "build_failed": "IBuilder::buildSerializedNetwork: Error Code 6: API Usage Error (Unable to load library: "
    "libnvinfer_lean.so.1. In Impl at /_src/runtime/dispatch/libLoader.cpp:305)",
}


def test_sizes_that_the_model_does_not_take_are_told_as_such() -> None:
    said = (
        "IBuilder::buildSerializedNetwork: Error Code 4: Internal Error (kOPT values for profile 0 violate shape "
        "constraints: IShuffleLayer p2o.Reshape.79: reshaping failed for tensor: p2o.Add.275 reshape would change "
        "volume 107520 to 26880. In operator() at /_src/runtime/core/shapeMachine.cpp:640)"
    )
    assert reasons.of_builder([said]).code == "sizes_refused"


@pytest.mark.parametrize("code", sorted(OF_BUILDER))
def test_what_the_builder_logs_is_told_without_the_places_in_its_source(code: str) -> None:
    error = reasons.of_builder([OF_BUILDER[code]])
    assert error.code == code
    assert error.detail
    assert "/_src" not in error.detail
    assert "Error Code" not in error.detail


def test_memory_that_ran_out_is_no_refusal() -> None:
    with pytest.raises(MemoryError):
        reasons.of_builder(["Error Code 2: OutOfMemory (Requested size was 4096 bytes.)"])


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (
            "Assertion failed: shiftIsAllZeros(zeroPoint): Non-zero zero point is not supported.",
            "asymmetric_quantization",
        ),
        (
            "add: ElementWiseOperation SUM must have same input types. But they are of types Float and Half.",
            "mixed_types",
        ),
        ("(b_dq: input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8.", "quantized_bias"),
        ("Failed to parse the ONNX model.", "not_onnx"),
        (
            'creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
            "unsupported_operator",
        ),
    ],
)
def test_what_the_parser_says_is_told_with_the_node(words: str, code: str) -> None:
    complaint = Complaint(
        code="INVALID_NODE", words=words, operator="Fused", node="here", domain="com.microsoft"
    )
    error = reasons.of_parser([complaint])
    assert error.code == code
    assert "“here”" in error.detail


def test_lines_about_the_driver_that_is_not_here_are_left_out() -> None:
    said: list[dict[str, Any]] = []
    heard = Heard(journal=Journal(emit=said.append, steps=1))
    heard.take("ERROR", "[checkMacros.cpp] Error Code 1: (cudaError 35: CUDA driver version is insufficient)")
    heard.take("VERBOSE", "Registering layer")
    heard.take("ERROR", "first\n\nsecond")
    assert [message["message"] for message in said] == ["TensorRT: first", "TensorRT: second"]
    assert list(heard.tail) == ["first", "second"]
    assert heard.errors == ["first\n\nsecond"]


nested = st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=4), max_leaves=12)


@given(nested, st.integers(0, 3))
def test_progress_never_falls_and_ends_at_the_end(tree: list[Any], spare: int) -> None:
    """However many children a phase has, and whatever number of steps it announced."""
    nesting, shares = Nesting(), [0.0]

    def walk(name: str, parent: str | None, children: list[Any]) -> None:
        nesting.start(name, parent, max(0, len(children) - spare))
        for index, child in enumerate(children):
            walk(f"{name}.{index}", name, child)
            nesting.step(name, index)
            shares.append(nesting.share)
        nesting.finish(name)
        shares.append(nesting.share)

    walk("root", None, tree)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


# Graphs that TensorRT would read as something else.


def test_axes_that_share_no_name_keep_theirs(tmp_path: Path) -> None:
    onnx_models.embedding(tmp_path / "model.onnx")
    model = read(tmp_path / "model.onnx")
    assert repairs.separate_axes(model) == []
    assert [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim] == ["batch", "length"]


@pytest.mark.parametrize(
    ("dtype", "zero", "options", "why"),
    [
        (np.int8, 0, {}, ""),
        (np.int8, 3, {}, "zero point 3"),
        (np.uint8, 128, {}, "unsigned"),
        (np.uint8, 0, {}, "unsigned"),
        (None, 0, {}, "unsigned"),
        (None, 0, {"output_dtype": TensorProto.INT8}, ""),
    ],
)
def test_pairs_that_tensorrt_would_read_otherwise_are_refused(
    dtype: Any, zero: int, options: dict[str, int], why: str
) -> None:
    """Unsigned integers with a zero point of 0, or with none, it builds without a word and cuts at 127."""
    constants = {"scale": np.float32(0.1)} | ({"zero": np.array(zero, dtype)} if dtype else {})
    names = ["x", *constants]
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", names, ["q"], name="pair_q", **options),
            helper.make_node("DequantizeLinear", ["q", *names[1:]], ["y"], name="pair_dq"),
        ],
        "pairs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    if not why:
        repairs.refuse_misread(model)
        return
    with pytest.raises(Unprocessable) as caught:
        repairs.refuse_misread(model)
    assert caught.value.code == "asymmetric_quantization"
    assert f"QuantizeLinear “pair_q” ({why})" in caught.value.detail


def test_an_input_without_a_rank_is_refused(tmp_path: Path) -> None:
    onnx_models.scaled(tmp_path / "model.onnx")
    model = read(tmp_path / "model.onnx")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(Unprocessable) as caught:
        repairs.refuse_misread(model)
    assert caught.value.code == "rank_unknown"


@pytest.mark.parametrize(
    ("dtype", "shape"), [("FLOAT", (-1, 4)), ("HALF", (-1, 4)), ("FLOAT", ()), ("FLOAT", (-1, 5))]
)
def test_inputs_that_tensorrt_reads_otherwise_are_refused(dtype: str, shape: tuple[int, ...]) -> None:
    signature = Signature.from_json(onnx_models.signature([("x", "FP32", ["batch", 4])], []))
    value = SimpleNamespace(name="x", dtype=SimpleNamespace(name=dtype), shape=shape)
    network = SimpleNamespace(num_inputs=1, num_outputs=0, get_input=lambda index: value)
    if (dtype, shape) == ("FLOAT", (-1, 4)):
        run._refuse_other_values(network, signature)
        return
    with pytest.raises(Unprocessable) as caught:
        run._refuse_other_values(network, signature)
    assert caught.value.code == "reads_differently"


# What earlier builds timed. The classes are TensorRT's in all that the builder asks of them; no GPU timed anything.


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> Any:
        return SimpleNamespace(nbytes=len(b"header" + self.content))


class Config:
    """`gpu` is where it builds: a cache says its own first. What is no cache becomes an empty one, as of the vendor."""

    def __init__(self, gpu: bytes) -> None:
        self.gpu, self.cache = gpu, None

    def create_timing_cache(self, content: bytes) -> TimingCache:
        return TimingCache(content if content.startswith(b"GPU") else b"")

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        if cache.content and not ignore_mismatch and not cache.content.startswith(self.gpu):
            return False
        self.cache = cache
        return True


@pytest.mark.parametrize(
    ("kept", "reused"), [(b"", False), (b"GPU1 timings", True), (b"GPU2 timings", False), (b"garbage", False)]
)
def test_a_build_begins_with_timings_of_its_own_gpu_only(kept: bytes, reused: bool) -> None:
    config = Config(b"GPU1")
    found = TensorRt().timings(config, kept)
    assert found.reused == reused
    assert config.cache is found.cache
    assert found.cache.content == (kept if reused else b"")
    assert Rtx().timings(config, kept) is None
