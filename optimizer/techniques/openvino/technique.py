"""OpenVINO IR, as it is or with INT8 by NNCF: what it is and what it asks."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from optimizer.techniques.port import (
    Device,
    ExcludedNodes,
    Hardware,
    Kind,
    ModelSummary,
    Parameters,
    Promises,
    Refusal,
    Technique,
)
from optimizer.techniques.quantization import TAKES, CalibrationItems, RepairRounds, refusals

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_NORMALIZATIONS = ("LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization")
_FUSED_ATTENTION = ("Attention", "MultiHeadAttention", "GroupQueryAttention")


class OpenVinoParameters(Parameters):
    precision: Literal["int8", "bf16", "fp32"] = Field(
        default="int8",
        title="Precision",
        description="INT8: weights and activations become 8-bit integers, with ranges learned from your own items. "
        "BF16: the same weights, computed in half the bits; needs a processor with BF16 arithmetic and no data. "
        "FP32: only OpenVINO's own kernels.",
    )
    model_type: Literal["auto", "transformer", "none"] = Field(
        default="auto",
        title="Kind of model",
        description="INT8: transformer keeps what ruins attention in floating point and smooths activations. Auto: "
        "transformer for a graph with attention, or with both softmax and layer normalization.",
    )
    preset: Literal["performance", "mixed"] = Field(
        default="performance",
        title="Preset",
        description="INT8: performance uses symmetric ranges throughout; mixed lets activations have an offset, which "
        "may be more accurate and slower.",
    )
    calibration_items: CalibrationItems = 128
    exclude_nodes: ExcludedNodes = ()
    repair_rounds: RepairRounds = 4


def is_transformer(op_types: Mapping[str, int]) -> bool:
    """By the operators alone. Layer normalization that an exporter wrote out has a mean and a square root."""
    if any(op_types.get(name) for name in _FUSED_ATTENTION):
        return True
    written_out = bool(op_types.get("ReduceMean") and op_types.get("Sqrt"))
    normalized = written_out or any(op_types.get(name) for name in _NORMALIZATIONS)
    return bool(op_types.get("MatMul") and op_types.get("Softmax") and normalized)


def check(
    signature: Mapping[str, Any], summary: ModelSummary, hardware: Hardware, params: Parameters
) -> tuple[Refusal, ...]:
    assert isinstance(params, OpenVinoParameters)
    found = list(_texts(signature))
    if params.precision == "int8":
        found += refusals(summary)
    if params.precision == "bf16" and hardware.cpu_flags and not BF16_FLAGS & hardware.cpu_flags:
        found.append(no_bf16())
    return tuple(found)


def no_bf16() -> Refusal:
    return Refusal(
        code="no_bf16",
        title="It needs a processor with BF16 arithmetic and this worker has none.",
        detail="Choose INT8 or FP32.",
    )


def _texts(signature: Mapping[str, Any]) -> list[Refusal]:
    named = [
        port["name"] for port in (*signature["inputs"], *signature["outputs"]) if port["dtype"] == "BYTES"
    ]
    if not named:
        return []
    return [
        Refusal(
            code="text_tensors",
            title="OpenVINO does not take models with text.",
            detail=f"“{named[0][:60]}” holds text.",
        )
    ]


TECHNIQUE = Technique(
    key="openvino",
    label="OpenVINO",
    description="Converts the model for OpenVINO, which serves it on CPUs in the place of ONNX Runtime: with INT8 by "
    "NNCF, in BF16, or unchanged. INT8 is usually the fastest variant on a CPU that stays accurate.",
    takes=TAKES,
    gives=Kind(format="openvino", precision=None),
    device=Device.CPU,
    parameters=OpenVinoParameters,
    promises=Promises(
        speedup=(3.0, 6.0), loss_points=(0.5, 2.0), effort="Minutes; a calibration set of about 100 items."
    ),
    check=check,
    entry="optimizer.techniques.openvino.run:run",
    needs_calibration_for=lambda params: params.precision == "int8",
    toolchain="openvino",
)
