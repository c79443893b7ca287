"""Reads an uploaded model in the sandbox: `inspect` is the entry.

No single tool is a gate (BADINPUT's measured table: each accepts files that another refuses), so a model passes
our walk, our look at the graph, onnx's checker and shape inference, a session of ONNX Runtime and one run.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake import bundle, graph, signature
from controlplane.registry.intake.complaints import invalid, reason
from controlplane.registry.intake.recognize import Kind, kind_of, not_onnx
from controlplane.registry.intake.tensors import dense_bytes, parameter_totals, quoted, type_name
from controlplane.registry.intake.walk import MAX_DENSE_BYTES, Facts, too_much_memory

type Emit = Callable[[dict[str, Any]], None]

STEPS = ("recognize", "walk", "check", "infer", "load", "run")
MAX_ONNX_BYTES = 2**31 - 1
_STRIPPED_BYTES = 64 * 1024


def inspect(spec: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
    """Spec: `path`, `scratch`, `total_bytes`. Returns `signature`, `summary` and `path` of the file to keep.

    Raises Unprocessable with what is wrong and what to do.
    """
    began = time.monotonic()
    step = _Steps(emit)
    step("recognize")
    source = Path(spec["path"])
    path = source
    if kind_of(source) is Kind.ZIP:
        path = bundle.single_file(source, scratch=Path(spec["scratch"]), total_bytes=spec["total_bytes"])
    step("walk")
    facts, model = _parsed(path)
    graph.check(model)
    found = signature.read(model.graph)
    step("check")
    _onnx_check(path)
    step("infer")
    findings = _inferred(model)
    step("load")
    from controlplane.registry.intake import trial

    session = trial.session(path)
    step("run")
    run = trial.run(session, found)
    if found["batch_axis"] == 0 and not run.batches:
        found["batch_axis"] = None
        findings.append("The first dimension is free, but a batch of 2 does not give 2 answers.")
    summary = _summary(model, facts, size_bytes=path.stat().st_size)
    summary |= {
        "findings": findings + run.findings,
        "run": run.to_json(),
        "seconds": time.monotonic() - began,
    }
    return {"signature": found, "summary": summary, "path": str(path)}


class _Steps:
    def __init__(self, emit: Emit) -> None:
        self._emit = emit

    def __call__(self, name: str) -> None:
        self._emit({"kind": "step", "name": name, "index": STEPS.index(name) + 1, "of": len(STEPS)})


def _parsed(path: Path) -> tuple[Facts, Any]:
    """The facts of the walk and the model without the values of its large tensors, which nothing below needs."""
    if path.stat().st_size > MAX_ONNX_BYTES:
        raise Unprocessable(
            "too_large_for_one_file", "An ONNX file can have at most 2 GiB.", "Upload a smaller model."
        )
    facts = bundle.checked(path)
    if facts.external:
        tensor = facts.external[0]
        raise tensor.external_refused(
            f"has its values in the file {quoted(tensor.external['location'])}, which a single .onnx does not hold",
            advice="Upload a zip archive of the .onnx file and its data file.",
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError has moved between its versions
        bytearray(2 * path.stat().st_size)  # MemoryError if that was the reason, which protobuf does not tell
        raise not_onnx("Its bytes cannot be parsed.") from error
    for tensor in bundle.tensors(model):
        if tensor.ByteSize() > _STRIPPED_BYTES:
            for name in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(name)
            del tensor.string_data[:]
    return facts, model


def _onnx_check(path: Path) -> None:
    """onnx's own checker with strict shape inference, from the file, in native memory only."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # ValidationError, InferenceError, and what leaks out of the native code
        raise invalid(error) from error


def _inferred(model: Any) -> list[str]:
    """Shapes of all values, with constants followed: one that would fill the memory is refused here, before
    anything computes it. What the inference cannot say is left to the run."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # noqa: BLE001 - the strict inference of the checker has passed already
        return [f"Shapes could not be followed through the graph: {reason(error)}"]
    graph_ = inferred.graph
    for value in (*graph_.input, *graph_.value_info, *graph_.output):
        tensor = value.type.tensor_type
        if type_name(tensor.elem_type) is None:
            continue
        elements = math.prod(max(size.dim_value, 1) for size in tensor.shape.dim)
        size = dense_bytes(tensor.elem_type, elements)
        if size > MAX_DENSE_BYTES:
            raise too_much_memory(f"The value {quoted(value.name)}", size)
    return []


def _summary(model: Any, facts: Facts, *, size_bytes: int) -> dict[str, Any]:
    operators = Counter(place.node.op_type for place in graph.places(model))
    totals = parameter_totals(facts.parameter_bytes)
    return {
        "size_bytes": size_bytes,
        "ir_version": model.ir_version,
        "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "nodes": facts.nodes,
        "operators": [[name, count] for name, count in operators.most_common(10)],
        "functions": len(model.functions),
        "parameters": facts.parameters,
        "parameter_bytes": totals,
        "precision": _precision(totals, operators),
    }


def _precision(totals: Mapping[str, int], operators: Mapping[str, int]) -> str:
    """Named by where most of the weights' bytes are; weights of 8 bits count if the graph dequantizes them."""
    quantized = {"DequantizeLinear", "QLinearMatMul", "QLinearConv", "MatMulInteger", "ConvInteger"}
    if quantized & operators.keys() and totals.get("INT8", 0) + totals.get("UINT8", 0):
        return "int8"
    floats = {name: totals.get(name, 0) for name in ("FP32", "FP16", "BF16", "FP64")}
    most = max(floats, key=lambda name: floats[name])
    return most.lower() if floats[most] else "fp32"
