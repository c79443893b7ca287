"""What the INT8 techniques ask, refuse and report alike."""

from collections.abc import Collection, Iterable
from typing import Annotated, Any

from pydantic import Field

from controlplane.core.errors import Unprocessable
from optimizer.techniques.graph import QUANTIZED
from optimizer.techniques.port import Kind, ModelSummary, Refusal

OLDEST_OPSET = 7
QUANTIZABLE = ("Conv", "MatMul", "Gemm")

TAKES = (Kind(format="onnx", precision="fp32"),)
GIVES = Kind(format="onnx", precision="int8")
PerChannel = Annotated[
    bool,
    Field(
        title="Per channel",
        description="One scale for each output channel of a weight: more accurate, rarely slower.",
    ),
]
ReduceRange = Annotated[
    bool,
    Field(
        title="Seven-bit weights",
        description="Avoids saturation on processors without VNNI, at some loss of precision.",
    ),
]
CalibrationItems = Annotated[
    int,
    Field(
        ge=8,
        le=1024,
        title="Calibration items",
        description="How many items of the set the ranges of INT8 are learned from, drawn at random with the job's "
        "seed. Of an evaluation set at most a quarter, because the items that calibrate are not compared.",
    ),
]
RepairRounds = Annotated[
    int,
    Field(
        ge=0,
        le=8,
        title="Rounds of repair",
        description="Where more is lost than the model's gate allows, the layers that integers hold worst stay in "
        "floating point, and it is tried again. It takes a data set, and looks at up to a quarter of the evaluation "
        "set, which is not compared afterwards. 0 repairs nothing.",
    ),
]


def refusals(summary: ModelSummary, *, op_types: Iterable[str] = QUANTIZABLE) -> tuple[Refusal, ...]:
    """Why this model cannot be quantized, as far as its summary tells."""
    wanted = tuple(op_types)
    found = []
    if already := sorted(QUANTIZED & summary.op_types.keys()):
        found.append(
            Refusal(
                code="already_quantized",
                title="The model is already quantized.",
                detail=f"It has {', '.join(already)}. Start from the version it was made of.",
            )
        )
    if summary.lacks(*wanted):
        found.append(
            Refusal(
                code="nothing_to_quantize",
                title="There is nothing in this model to quantize.",
                detail=f"It has no {' and no '.join(wanted)}.",
            )
        )
    if summary.opset is not None and summary.opset < OLDEST_OPSET:
        found.append(
            Refusal(
                code="opset_too_old",
                title=f"Opset {summary.opset} is too old to be quantized.",
                detail="Export the model again with opset 13 or newer.",
            )
        )
    return tuple(found)


def exclusions(names: Iterable[str], *, model: Any) -> list[str]:
    """The nodes to leave alone. Raises Unprocessable("unknown_nodes") for names that the graph lacks."""
    wanted, present = list(names), {node.name for node in model.graph.node}
    if unknown := [name for name in wanted if name not in present]:
        raise Unprocessable(
            "unknown_nodes",
            "Some nodes to exclude are not in the model.",
            f"Not found: {', '.join(unknown[:5])}. Names count after constants were folded.",
        )
    return wanted


def also_split(names: Iterable[str]) -> list[str]:
    """These and what ONNX Runtime's quantizers call them by the time they ask: a Gemm is split into two nodes first."""
    return [given for name in names for given in (name, f"{name}_MatMul")]


def require_change(*, before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """Quantized nodes by operator. Raises Unprocessable("nothing_quantized") when there is none."""
    made = {name: count for name, count in after.items() if name in QUANTIZED and count > before.get(name, 0)}
    if not made:
        raise nothing_quantized()
    return made


def nothing_quantized() -> Unprocessable:
    return Unprocessable(
        "nothing_quantized",
        "No node was quantized.",
        "Only nodes whose weights are constants of the model can be, and only those not excluded.",
    )


def layers_of(
    model: Any, *, op_types: Collection[str] = QUANTIZABLE, excluded: Collection[str] = ()
) -> list[str]:
    """Names of the nodes of these types that have weights of the model among their first two inputs."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in op_types and node.name not in excluded and constants & set(node.input[:2])
    ]
