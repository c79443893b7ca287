"""INT8 weights and activations with ranges learned from items: what it is and what it asks."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from optimizer.techniques.port import (
    Device,
    ExcludedNodes,
    Hardware,
    ModelSummary,
    Parameters,
    Promises,
    Refusal,
    Technique,
)
from optimizer.techniques.quantization import (
    GIVES,
    TAKES,
    CalibrationItems,
    PerChannel,
    ReduceRange,
    RepairRounds,
    refusals,
)


class StaticParameters(Parameters):
    tool: Literal["onnxruntime", "nncf"] = Field(
        default="onnxruntime",
        title="Tool",
        description="ONNX Runtime's makes the file that it runs fastest on a CPU. NNCF's is symmetric, which is what "
        "TensorRT takes, and smooths a transformer's activations first (SmoothQuant): more accurate there, and slower "
        "on ONNX Runtime. NNCF chooses ranges and channels itself.",
    )
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
    calibration_items: CalibrationItems = 128
    percentile: float = Field(
        default=99.99,
        ge=90.0,
        le=100.0,
        title="Percentile",
        description="Share of an activation's values that must lie in its range; used by percentile calibration.",
    )
    per_channel: PerChannel = True
    reduce_range: ReduceRange = False
    exclude_nodes: ExcludedNodes = ()
    repair_rounds: RepairRounds = 4

    @property
    def toolchain(self) -> str | None:
        return "openvino" if self.tool == "nncf" else None


def check(
    signature: Mapping[str, Any], summary: ModelSummary, hardware: Hardware, params: Parameters
) -> tuple[Refusal, ...]:
    return refusals(summary)


TECHNIQUE = Technique(
    key="int8-static",
    label="INT8, static",
    description="Weights and activations become 8-bit integers, with ranges learned from your own items. Right for "
    "convolutional nets on processors with integer dot products.",
    takes=TAKES,
    gives=GIVES,
    device=Device.CPU,
    parameters=StaticParameters,
    promises=Promises(
        speedup=(3.0, 6.0), loss_points=(0.5, 2.0), effort="Minutes; a calibration set of about 100 items."
    ),
    check=check,
    entry="optimizer.techniques.int8_static.run:run",
    needs_calibration=True,
    gives_unsigned=lambda params: params.tool == "onnxruntime",
)
