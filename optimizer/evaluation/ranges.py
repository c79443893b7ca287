"""Which whole numbers an input may hold: found by following it through the graph.

A token id above the vocabulary makes a Gather fail, or silently leaves a one-hot row empty, so random
integers must stay where the model's own constants allow them. Subgraphs of If and Loop are not followed.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Operators that hand integer values on unchanged, from their first input (Concat: from any).
PASSING = frozenset(
    [
        "Cast",
        "Concat",
        "Expand",
        "Flatten",
        "Identity",
        "Max",
        "Min",
        "Clip",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ]
)


@dataclass(frozen=True, kw_only=True)
class Range:
    """Both ends included."""

    low: int
    high: int


def integer_ranges(path: Path) -> dict[str, Range]:
    """A range for each integer input whose use says something about it. Cost: reads the file."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    constants: dict[str, Any] = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if len(tensor.dims) <= 4 and np.prod(tensor.dims, dtype=np.int64) <= 1_000_000
    }
    consumers: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            shapes[node.output[0]] = constants[node.output[0]].shape
        for name in set(node.input):
            consumers[name].append(node)
    walk = _Walk(consumers=consumers, constants=constants, shapes=shapes)
    found = {value.name: walk.range_of(value.name) for value in graph.input}
    return {name: limits for name, limits in found.items() if limits is not None}


@dataclass(frozen=True, kw_only=True)
class _Walk:
    consumers: dict[str, list[Any]]
    constants: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    def range_of(self, name: str) -> Range | None:
        """What every use allows; None when no use says anything, or they leave nothing."""
        limits = [limit for use in self._uses(name) if (limit := self._limit(*use)) is not None]
        low = max((limit.low for limit in limits), default=1)
        high = min((limit.high for limit in limits), default=0)
        return Range(low=low, high=high) if low <= high else None

    def _uses(self, name: str) -> Iterator[tuple[Any, str]]:
        """Every (node, tensor) where the values end up, past the operators that only pass them on."""
        pending, seen = [name], {name}
        while pending:
            tensor = pending.pop()
            for node in self.consumers[tensor]:
                passes = node.op_type in PASSING and (tensor == node.input[0] or node.op_type == "Concat")
                if not passes:
                    # A shape or a count is no use of the values.
                    if node.op_type not in {"Shape", "Size"}:
                        yield node, tensor
                    continue
                fresh = [output for output in node.output if output not in seen]
                seen.update(fresh)
                pending.extend(fresh)

    def _limit(self, node: Any, tensor: str) -> Range | None:
        inputs = list(node.input)
        match node.op_type:
            case "Gather" if tensor == inputs[1] and inputs[0] in self.shapes:
                return _up_to(self.shapes[inputs[0]][_attribute(node, "axis", 0)])
            case "OneHot" if tensor == inputs[0] and inputs[1] in self.constants:
                return _up_to(int(np.asarray(self.constants[inputs[1]]).reshape(-1)[0]))
            case "EmbedLayerNormalization" if tensor == inputs[0] and inputs[2] in self.shapes:
                return _up_to(self.shapes[inputs[2]][0])
            case "Equal":
                other = inputs[1] if tensor == inputs[0] else inputs[0]
                return _one_hot(self.constants.get(other))
        return None


def _up_to(size: int) -> Range:
    return Range(low=0, high=max(0, size - 1))


def _one_hot(constant: Any) -> Range | None:
    """`x == [0, 1, .. n-1]` is how some exporters write a one-hot encoding."""
    if constant is None or constant.dtype.kind not in "iu" or constant.size < 2:
        return None
    values = np.sort(constant.reshape(-1))
    if not np.array_equal(values, np.arange(values[0], values[0] + values.size)):
        return None
    return Range(low=int(values[0]), high=int(values[-1]))


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)
