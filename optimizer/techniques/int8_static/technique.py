"""INT8 weights and activations with ranges learned from items: what it is and what it asks."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from optimizer.techniques.port import (
    Device,
    Hardware,
    Kind,
    ModelSummary,
    Parameters,
    Promises,
    Refusal,
    Technique,
)
from optimizer.techniques.quantization import refusals

QUANTIZABLE = ("Conv", "MatMul", "Gemm")


class StaticParameters(Parameters):
    scope: Literal["auto", "weights", "all"] = Field(
        default="auto",
        title="Scope",
        description="Weights: convolutions and multiplications with constant weights. All: every operator that has "
        "an integer form, which suits pure convolutional nets and ruins transformers. Auto: all for a net whose "
        "only weights are convolutions, else weights.",
    )
    calibration: Literal["minmax", "entropy", "percentile"] = Field(
        default="minmax",
        title="Calibration",
        description="How the range of an activation is chosen: the whole range seen, the one that loses least "
        "information, or all but the outliers.",
    )
    calibration_items: int = Field(
        default=128,
        ge=8,
        le=1024,
        title="Calibration items",
        description="How many items of the set are used, drawn at random with the job's seed. Of an evaluation set at "
        "most a quarter, because the items that calibrate are not compared.",
    )
    percentile: float = Field(
        default=99.99,
        ge=90.0,
        le=100.0,
        title="Percentile",
        description="Share of an activation's values that must lie in its range; used by percentile calibration.",
    )
    per_channel: bool = Field(
        default=True,
        title="Per channel",
        description="One scale for each output channel of a weight: more accurate, rarely slower.",
    )
    reduce_range: bool = Field(
        default=False,
        title="Seven-bit weights",
        description="Avoids saturation on processors without VNNI, at some loss of precision.",
    )
    exclude_nodes: tuple[str, ...] = Field(
        default=(),
        max_length=500,
        title="Nodes to leave alone",
        description="Names of nodes that stay in floating point.",
    )


def check(
    signature: Mapping[str, Any], summary: ModelSummary, hardware: Hardware, params: Parameters
) -> tuple[Refusal, ...]:
    return refusals(summary, op_types=QUANTIZABLE)


TECHNIQUE = Technique(
    key="int8-static",
    label="INT8, static",
    description="Weights and activations become 8-bit integers, with ranges learned from your own items. Right for "
    "convolutional nets on processors with integer dot products.",
    takes=(Kind(format="onnx", precision="fp32"),),
    gives=Kind(format="onnx", precision="int8"),
    device=Device.CPU,
    parameters=StaticParameters,
    promises=Promises(
        speedup=(3.0, 6.0), loss_points=(0.5, 2.0), effort="Minutes; a calibration set of about 100 items."
    ),
    check=check,
    entry="optimizer.techniques.int8_static.run:run",
    needs_calibration=True,
)
