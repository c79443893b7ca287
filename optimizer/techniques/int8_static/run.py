"""Static quantization to QDQ, by ONNX Runtime's tool or by NNCF.

ONNX Runtime's: unsigned activations with signed weights, the pair that x86 integer kernels are written for (2.6 times
faster than signed with signed on a conv net). NNCF's: signed and symmetric, which is what TensorRT takes, and smoothed.
"""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optimizer.techniques.calibration import Calibration
from optimizer.techniques.graph import PER_CHANNEL_OPSET, op_types, prepare, read, sort_file
from optimizer.techniques.int8_static.technique import StaticParameters
from optimizer.techniques.port import Work
from optimizer.techniques.quantization import (
    QUANTIZABLE,
    also_split,
    exclusions,
    layers_of,
    nothing_quantized,
    require_change,
)
from optimizer.techniques.repair import Quantize, fitted_to, quantize_within_budget
from optimizer.techniques.writing import write

# Histograms keep every activation of a stride in memory.
STRIDE = 8


def run(work: Work, params: StaticParameters) -> dict[str, Any]:
    """Writes the quantized model to `work.output`.

    Raises Unprocessable: `calibration_missing`, what the set is refused for, `unknown_nodes`, `nothing_quantized`, and
    what repairing it raises. Cost: one run of the float model per calibration item, for NNCF in every round.
    """
    calibration = Calibration.draw(work, wanted=params.calibration_items, stride=STRIDE)
    prepared, done = prepare(work.input, scratch=work.scratch, at_least=PER_CHANNEL_OPSET)
    work.journal.info(f"Prepared: {', '.join(done)}. Calibrating on {len(calibration.chosen)} items.")
    model = read(prepared)
    before, asked = op_types(model), exclusions(params.exclude_nodes, model=model)
    scope = _scope(params, before)
    layers = layers_of(model, excluded=asked)
    if params.tool == "nncf" and not layers:  # which it tells with an assertion
        raise nothing_quantized()
    others = [node.name for node in model.graph.node if node.name not in {*layers, *asked}]
    del model  # the tools read one of their own
    by = _by_nncf if params.tool == "nncf" else _by_onnxruntime
    tool = by(work, params, prepared=prepared, scope=scope, calibration=calibration)

    def quantize(made: Path, left: Sequence[str]) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            tool(made, [*asked, *left])
        require_change(before=before, after=op_types(read(made)))

    repair = quantize_within_budget(
        work,
        original=prepared,
        quantize=quantize,
        rounds=params.repair_rounds,
        layers=layers,
        others=others if scope == "all" else (),
    )
    made = require_change(before=before, after=op_types(read(work.output)))
    work.journal.info(f"Quantized nodes: {', '.join(f'{count} {name}' for name, count in made.items())}.")
    return {
        "preparation": done,
        "scope": scope,
        "quantized_nodes": made,
        "calibration": calibration.to_json()
        | {"method": params.calibration if params.tool == "onnxruntime" else params.tool},
        "repair": repair,
        "evaluation_items": sorted({*calibration.evaluation_items, *fitted_to(repair)}),
    }


def _by_onnxruntime(
    work: Work, params: StaticParameters, *, prepared: Path, scope: str, calibration: Calibration
) -> Quantize:
    """What it learns of ranges is kept from round to round."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    method = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }[params.calibration]

    def quantize(made: Path, left: Sequence[str]) -> None:
        quantize_static(
            str(prepared),
            str(made),
            calibration.reader(work.journal),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZABLE) if scope == "weights" else None,
            per_channel=params.per_channel,
            reduce_range=params.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=also_split(left),
            calibrate_method=method,
            calibration_cache_path=work.scratch / "ranges.json",
            extra_options={
                "MatMulConstBOnly": scope == "weights",
                "DefaultTensorType": onnx.TensorProto.FLOAT,
                "CalibStridedMinMax": min(STRIDE, len(calibration.chosen)),
                "CalibPercentile": params.percentile,
            },
        )
        sort_file(made)

    return quantize


def _by_nncf(
    work: Work, params: StaticParameters, *, prepared: Path, scope: str, calibration: Calibration
) -> Quantize:
    """Smooths a transformer's activations into its weights first (SmoothQuant)."""
    import nncf

    def quantize(made: Path, left: Sequence[str]) -> None:
        model = read(prepared)
        quantized = nncf.quantize(
            model,
            nncf.Dataset(list(calibration.reader(work.journal))),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            model_type=nncf.ModelType.TRANSFORMER if scope == "weights" else None,
            subset_size=len(calibration.chosen),
            ignored_scope=nncf.IgnoredScope(names=list(left), validate=False),
        )
        _make_signed(quantized)
        write(quantized, made)

    return quantize


def _make_signed(model: Any) -> None:
    """TensorRT reads what is unsigned with a zero point of 0 as signed and would cut off its upper half, so the same
    range is written in signed numbers."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for scale, zero in sorted({(node.input[1], node.input[2]) for node in nodes}):
        if constants[zero].data_type == TensorProto.UINT8:
            wider = numpy_helper.to_array(constants[scale]) * np.float32(255 / 127)
            signed = numpy_helper.to_array(constants[zero]).astype(np.int8)
            constants[scale].CopyFrom(numpy_helper.from_array(wider, scale))
            constants[zero].CopyFrom(numpy_helper.from_array(signed, zero))
    for value in graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            value.type.tensor_type.elem_type = TensorProto.INT8


def _scope(params: StaticParameters, nodes: dict[str, int]) -> str:
    """Every operator only where it is safe: residual conv nets gain from staying in integers throughout."""
    if params.scope != "auto":
        return params.scope
    return "all" if nodes.get("Conv") and not nodes.get("MatMul") else "weights"
