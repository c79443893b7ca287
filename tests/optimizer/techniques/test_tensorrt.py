"""Engines, built for real without a GPU; and what is refused, with TensorRT's reason and the node's name."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from controlplane.core.errors import Unprocessable
from controlplane.core.sandbox import Child
from controlplane.registry.engines import Engine
from controlplane.settings.environment import REPOSITORY
from optimizer.evaluation.child import evaluate
from optimizer.techniques.graph import read
from optimizer.techniques.tensorrt.technique import AHEAD
from optimizer.workbench.engine import runtime_of
from optimizer.workbench.items import digest
from optimizer.workbench.journal import Journal
from optimizer.workbench.signature import Signature
from optimizer.worker import gpus
from tests.optimizer import onnx_models, where_it_runs
from tests.optimizer.techniques.conftest import LIMITS, SEED, Made
from tests.toolchains import interpreter

ENGINE = "made.engine"


def build(model: Made, **params: Any) -> dict[str, Any]:
    return model.optimize("tensorrt", output=ENGINE, params=params)


def refused(model: Made, **params: Any) -> Unprocessable:
    with pytest.raises(Unprocessable) as caught:
        build(model, **params)
    assert not list((model.folder / "out").iterdir())
    return caught.value


def with_nodes(
    model: Made,
    nodes: list[Any],
    *,
    constants: dict[str, Any] | None = None,
    x: list[Any] | None = None,
    **more: Any,
) -> Made:
    """The model of a test: one input x, one output y."""
    model.signature = onnx_models.signature(
        [("x", "FP32", x or ["batch", 4, 4])], [("y", "FP32", more.pop("y", ["batch"]))]
    )
    onnx_models.save(model.path, nodes=nodes, constants=constants or {}, signature=model.signature, **more)
    return model


def test_an_engine_for_several_capabilities_says_what_it_is_bound_to(made: Callable[[str], Made]) -> None:
    model = made("magika")
    done = build(model, capabilities=["8.6", "8.9"], axes=["unk__214=1/4/16"])
    engine = done["provenance"]["engine"]
    content = Path(done["output_path"]).read_bytes()
    assert (done["format"], done["precision"]) == ("tensorrt", "fp32")
    assert engine["backend"] == runtime_of(Path(done["output_path"])) == "tensorrt_rtx"
    assert engine["version"] == done["provenance"]["versions"]["tensorrt-rtx-cu12"]
    assert engine["capabilities"] == ["8.6", "8.9"]
    assert engine["flags"] == ["TF32"]
    assert engine["timing_cache"] == "none"
    assert engine["profiles"] == [{"bytes": {"min": [1, 2048], "opt": [4, 2048], "max": [16, 2048]}}]
    assert engine["inputs"] == [{"name": "bytes", "dtype": "INT32", "shape": [-1, 2048]}]
    assert engine["outputs"] == [{"name": "target_label", "dtype": "FP32", "shape": [-1, 214]}]
    assert engine["size_bytes"] == len(content) > 3_000_000
    assert engine["source_sha256"] == digest(model.path)
    lines = [message["message"] for message in model.messages if message["kind"] == "log"]
    assert any("TensorRT: Engine generation completed" in line for line in lines)
    assert not any("cudaError 35" in line for line in lines)
    assert engine["log_tail"]
    assert set(engine["log_tail"]) <= {line.removeprefix("TensorRT: ") for line in lines}
    progress = [message["done"] for message in model.messages if message["kind"] == "progress"]
    assert progress == sorted(progress)
    assert progress[-1] == 100


def test_an_engine_is_measured_on_a_gpu_that_it_was_built_for(made: Callable[[str], Made]) -> None:
    """The whole way, where there is one: built, opened, compared with ONNX Runtime on the same GPU."""
    gpu = gpus.served()
    if gpu is None or gpu.capability not in AHEAD:
        pytest.skip(
            f"not run: it takes an NVIDIA GPU of compute capability {' or '.join(sorted(AHEAD, key=float))}"
        )
    interpreter("cuda")
    model = made("cnn")
    done = build(model, capabilities=[gpu.capability], tf32=False)
    engine = Engine.of({"steps": [done["provenance"]]})
    assert engine is not None
    spec = {
        "parent_path": str(model.path),
        "variant_path": done["output_path"],
        "variant_format": "tensorrt",
        "signature": model.signature,
        "budget_s": 5.0,
        "gpu": True,
        "largest_batch": engine.batches[1],
    }
    report = model.child(evaluate, spec, toolchain="cuda")
    assert report["verdict"] not in ("not_measured", "failed"), report["sentence"]
    assert report["machine"]["gpu"] == gpu.name
    assert report["accuracy"]["outputs"][0]["max_abs_difference"] < 1e-3
    for side in ("parent", "variant"):
        assert report[side]["load_ms"] > 0
        assert report[side]["memory_bytes"] > 0


@pytest.mark.skipif(
    Path("/dev/nvidiactl").exists(), reason="there is a driver, so the test before this one runs"
)
def test_without_a_driver_an_engine_goes_as_far_as_that_and_says_so(made: Callable[[str], Made]) -> None:
    """A real engine, TensorRT's own runtime and CUDA's own bindings: all of the way that needs no GPU."""
    model = made("mlp")
    done = build(model, capabilities=["8.9"])
    spec = {"path": done["output_path"], "format": "tensorrt"}
    with pytest.raises(Unprocessable) as refused:
        model.child(where_it_runs.open_on_gpu, spec, toolchain="tensorrt")
    assert refused.value.code == "model_does_not_open"
    assert "CUDA driver version is insufficient" in refused.value.detail


def test_an_input_whose_values_are_sizes_is_named(made: Callable[[str], Made]) -> None:
    model = made("mlp")
    model.signature = onnx_models.signature(
        [("x", "FP32", [3, 4]), ("k", "INT64", [1])], [("y", "FP32", [3, "few"]), ("at", "INT64", [3, "few"])]
    )
    largest = helper.make_node("TopK", ["x", "k"], ["y", "at"])
    onnx_models.save(model.path, nodes=[largest], constants={}, signature=model.signature)
    error = refused(model)
    assert (error.code, error.detail) == (
        "shape_input",
        "It has “k”. Export the model with that input as a constant.",
    )


def test_sizes_that_are_refused_are_taken_from_the_data_set(made: Callable[[str], Made]) -> None:
    """The model leaves both axes open, and takes 7 of one."""
    model = with_nodes(
        made("mlp"),
        [
            helper.make_node("Reshape", ["x", "rows"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        constants={"rows": np.array([-1, 7]), "w": np.ones((7, 3), np.float32)},
        x=["batch", "length"],
        y=["batch", 3],
    )
    np.savez(model.calibration, x=np.ones((5, 7), np.float32))
    done = build(model)
    (profile,) = done["provenance"]["engine"]["profiles"]
    assert profile == {"x": {"min": [1, 7], "opt": [8, 7], "max": [32, 7]}}
    assert any("the sizes of the data set instead" in one.get("message", "") for one in model.messages)
    Path(done["output_path"]).unlink()
    assert refused(model, axes=["length=1/64/512"]).code == "sizes_refused"
    with pytest.raises(Unprocessable) as caught:
        model.optimize("tensorrt", output=ENGINE, calibration_npz=None)
    assert caught.value.code == "sizes_refused"


def test_half_precision_comes_from_the_step_before_and_lets_turing_in(made: Callable[[str], Made]) -> None:
    model = made("magika")
    whole = model.path.stat().st_size
    half = model.optimize("fp16", output="half.onnx", calibration_npz=None)
    model.path = Path(half["output_path"]).rename(model.folder / "half.onnx")
    done = build(model, capabilities=["7.5", "8.9"])
    assert done["precision"] == "fp16"
    assert done["provenance"]["engine"]["size_bytes"] < whole


def test_integers_come_from_symmetric_pairs_and_quantized_biases_are_undone(
    made: Callable[[str], Made],
) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    from optimizer.techniques.calibration import Reader
    from optimizer.workbench.items import read_npz

    model = made("cnn")
    items = read_npz(model.calibration, Signature.from_json(model.signature))
    journal = Journal(emit=lambda message: None, steps=1)
    biased = read(model.path)
    biased.graph.initializer.append(numpy_helper.from_array(np.arange(8, dtype=np.float32), "bias"))
    biased.graph.node[0].input.append("bias")
    onnx.save(biased, model.path)
    quantize_static(
        str(model.path),
        str(model.folder / "symmetric.onnx"),
        Reader(items, list(range(8)), journal),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )
    model.path = model.folder / "symmetric.onnx"
    done = build(model)
    assert done["precision"] == "int8"
    assert done["provenance"]["prepared"] == ["1 quantized biases written as floats"]


def test_what_the_house_quantizes_for_cpus_is_refused_with_the_nodes(made: Callable[[str], Made]) -> None:
    model = made("mlp")
    quantized = model.optimize("int8-static")
    model.path = Path(quantized["output_path"]).rename(model.folder / "asymmetric.onnx")
    error = refused(model)
    assert error.code == "asymmetric_quantization"
    assert "QuantizeLinear “x_QuantizeLinear” (unsigned)" in error.detail
    assert "zero points of 0" in error.detail


def test_operators_that_tensorrt_lacks_are_named_with_their_nodes(made: Callable[[str], Made]) -> None:
    model = with_nodes(
        made("mlp"),
        [
            helper.make_node("Det", ["x"], ["d"], name="the_det"),
            helper.make_node("Det", ["x"], ["e"]),
            helper.make_node("Add", ["d", "e"], ["y"]),
        ],
    )
    error = refused(model)
    assert error.code == "unsupported_operator"
    assert error.detail == (
        "Det at node “the_det”: TensorRT has no such operator; Det at node “Det_1”: TensorRT has no such operator."
    )


def fp8(model: Made) -> Made:
    eight = helper.make_tensor("w8", TensorProto.FLOAT8E4M3FN, [16, 8], np.linspace(-1, 1, 128))
    zero = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["x8"], name="x_q"),
        helper.make_node("DequantizeLinear", ["x8", "scale"], ["xd"], name="x_dq"),
        helper.make_node("DequantizeLinear", ["w8", "scale"], ["w"], name="w_dq"),
        helper.make_node("MatMul", ["xd", "w"], ["y"], name="multiply"),
    ]
    model.signature = onnx_models.signature([("x", "FP32", ["batch", 16])], [("y", "FP32", ["batch", 8])])
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["batch", 16]), ("y", ["batch", 8]))
    ]
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    graph = helper.make_graph(nodes, "fp8", values[:1], values[1:], [scale, zero, eight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.save(made, model.path)
    return model


def test_fp8_is_refused_for_ampere_with_tensorrts_reason_and_built_for_ada(
    made: Callable[[str], Made],
) -> None:
    model = fp8(made("mlp"))
    error = refused(model, capabilities=["8.6", "8.9"])
    assert error.code == "unsupported_on_capability"
    assert error.title == "TensorRT cannot build this model for compute capability 8.6."
    assert "HW-specific datatypes: fp8_e4m3" in error.detail
    done = build(model, capabilities=["8.9", "12.0"])
    assert (done["format"], done["precision"]) == ("tensorrt", "fp8")


def test_open_axes_of_one_name_are_told_apart_and_built(made: Callable[[str], Made]) -> None:
    """Exporters that call every open axis “?”: TensorRT would take height and width for equal."""
    kernel = np.ones((2, 3, 3, 5), dtype=np.float32)
    model = with_nodes(
        made("mlp"),
        [helper.make_node("Conv", ["x", "k"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["y"])],
        constants={"k": kernel},
        x=["n", 3, "?", "?"],
        y=["n", 2, 1, 1],
    )
    done = build(model, axes=["?=8/16/32"])
    assert done["provenance"]["prepared"] == ["axes that shared the name “?” got names of their own"]
    assert done["provenance"]["engine"]["profiles"] == [
        {"x": {"min": [1, 3, 8, 8], "opt": [8, 3, 16, 16], "max": [32, 3, 32, 32]}}
    ]


def test_a_build_that_is_asked_to_stop_is_ended_by_tensorrts_monitor(made: Callable[[str], Made]) -> None:
    """Asked while it still starts, so that the first thing its monitor hears is the question."""
    model = made("magika")
    spec = {
        "technique": "tensorrt",
        "params": {},
        "input_path": str(model.path),
        "output_path": str(model.folder / ENGINE),
        "signature": model.signature,
        "seed": SEED,
    }
    with Child.start(
        entry="optimizer.techniques.child:run",
        spec=spec,
        scratch=model.folder,
        limits=LIMITS,
        readable=[model.path],
        python=interpreter("tensorrt"),
    ) as child:
        child.ask_to_stop()
        outcome = child.outcome()
    assert outcome.refusal is not None, outcome
    assert outcome.refusal.code == "stopped"
    assert outcome.refusal.detail == "Build canceled by user"
    assert not (model.folder / ENGINE).exists()


TIMINGS = """
import tensorrt_rtx as trt
from optimizer.techniques.tensorrt.backends import TensorRt
builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
for kept in (b"", b"garbage" * 99, bytes(range(256)) * 9):
    found = TensorRt().timings(builder.create_builder_config(), kept)
    print(found.reused, found.cache.serialize().nbytes)
"""


def test_a_broken_timing_cache_is_an_empty_one_to_the_vendor() -> None:
    """With the calls of TensorRT for RTX, which says that it uses none: the two products share them."""
    done = subprocess.run(
        [interpreter("tensorrt"), "-W", "ignore", "-c", TIMINGS],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    first, *others = done.stdout.splitlines()
    assert first.startswith("False ")
    assert others == [first, first]
