"""INT8 weights, activations quantized while running: what it is and what it asks."""

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
from optimizer.techniques.quantization import GIVES, TAKES, PerChannel, ReduceRange, RepairRounds, refusals

type Operator = Literal["MatMul", "Gemm", "Conv", "Attention", "LSTM", "Gather", "EmbedLayerNormalization"]


class DynamicParameters(Parameters):
    op_types: tuple[Operator, ...] = Field(
        default=("MatMul", "Gemm"),
        min_length=1,
        max_length=7,
        title="Operators",
        description="Which operators to quantize. Convolutions are usually slower this way, often several times.",
    )
    per_channel: PerChannel = True
    reduce_range: ReduceRange = False
    exclude_nodes: ExcludedNodes = ()
    repair_rounds: RepairRounds = 4


def check(
    signature: Mapping[str, Any], summary: ModelSummary, hardware: Hardware, params: Parameters
) -> tuple[Refusal, ...]:
    wanted = params.op_types if isinstance(params, DynamicParameters) else DynamicParameters().op_types
    return refusals(summary, op_types=wanted)


TECHNIQUE = Technique(
    key="int8-dynamic",
    label="INT8, dynamic",
    description="Weights become 8-bit integers; activations are quantized while the model runs, so no data is needed. "
    "Right for large matrix multiplications, wrong for convolutions and small models.",
    takes=TAKES,
    gives=GIVES,
    device=Device.CPU,
    parameters=DynamicParameters,
    promises=Promises(speedup=(3.0, 6.0), loss_points=(0.5, 2.0), effort="Minutes; no data needed."),
    check=check,
    entry="optimizer.techniques.int8_dynamic.run:run",
    gives_op_types=("DynamicQuantizeLinear",),
)
