"""What both INT8 techniques refuse and report alike."""

from collections.abc import Iterable

from controlplane.core.errors import Unprocessable
from optimizer.techniques.graph import QUANTIZED
from optimizer.techniques.port import ModelSummary, Refusal

OLDEST_OPSET = 7


def refusals(summary: ModelSummary, *, op_types: Iterable[str]) -> tuple[Refusal, ...]:
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


def exclusions(names: Iterable[str], *, present: set[str]) -> list[str]:
    """The nodes to leave alone. Raises Unprocessable("unknown_nodes") for names that the graph lacks."""
    wanted = list(names)
    if unknown := [name for name in wanted if name not in present]:
        raise Unprocessable(
            "unknown_nodes",
            "Some nodes to exclude are not in the model.",
            f"Not found: {', '.join(unknown[:5])}. Names count after constants were folded.",
        )
    return wanted


def require_change(*, before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """Quantized nodes by operator. Raises Unprocessable("nothing_quantized") when there is none."""
    made = {name: count for name, count in after.items() if name in QUANTIZED and count > before.get(name, 0)}
    if not made:
        raise Unprocessable(
            "nothing_quantized",
            "No node was quantized.",
            "Only nodes whose weights are constants of the model can be, and only those not excluded.",
        )
    return made
