"""Valid inputs for a signature: the example in a snippet, and the bodies that the demo load sends.

Values are safe rather than realistic: small non-negative integers fit class ids, tokens and bytes alike.
Refused: sending zeros only; a model may take a short cut on them and the charts would flatter it.
"""

import json
import random
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

LARGEST_INT = 255
FREE_SIZE = 8
"""What a dimension gets that the model leaves open and that is not the batch."""
SHOWN_ELEMENTS = 32
"""A longer tensor is written as an expression in snippets."""
_WORDS = ("alpha", "bravo", "charlie", "delta", "echo")


def shape_of(tensor: Mapping[str, Any], *, rows: int = 1) -> list[int]:
    """The tensor's shape with the first open dimension as `rows`, later ones as a small size."""
    return [
        size if isinstance(size, int) else (rows if place == 0 else FREE_SIZE)
        for place, size in enumerate(tensor["shape"])
    ]


def constant(dtype: str) -> Any:
    """One element that every model takes."""
    if dtype == "BOOL":
        return True
    if dtype == "BYTES":
        return "text"
    return 0.5 if dtype.startswith(("FP", "BF")) else 1


def random_body(signature: Mapping[str, Any], source: random.Random, *, rows: int = 1) -> dict[str, Any]:
    """An inference request in Open Inference Protocol JSON with random values."""
    return {"inputs": [_tensor(one, source, rows=rows) for one in signature["inputs"]]}


def body_of_item(signature: Mapping[str, Any], item: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The request for one item of a data set: per input its nested values, without the batch axis."""
    return {
        "inputs": [
            {
                "name": one["name"],
                "datatype": one["dtype"],
                "shape": [1, *_sizes(item[one["name"]])],
                "data": list(_flat(item[one["name"]])),
            }
            for one in signature["inputs"]
        ]
    }


def _tensor(tensor: Mapping[str, Any], source: random.Random, *, rows: int) -> dict[str, Any]:
    shape = shape_of(tensor, rows=rows)
    return {
        "name": tensor["name"],
        "datatype": tensor["dtype"],
        "shape": shape,
        "data": [_element(tensor["dtype"], source) for _ in range(prod(shape))],
    }


def _element(dtype: str, source: random.Random) -> Any:
    if dtype == "BOOL":
        return source.random() < 0.5
    if dtype == "BYTES":
        return source.choice(_WORDS)
    if dtype.startswith(("FP", "BF")):
        return round(source.uniform(-1, 1), 4)
    return source.randint(0, 127 if dtype == "INT8" else LARGEST_INT)


def _sizes(values: Any) -> list[int]:
    sizes = []
    while isinstance(values, list):
        sizes.append(len(values))
        values = values[0] if values else None
    return sizes


def _flat(values: Any) -> Any:
    if isinstance(values, list):
        for one in values:
            yield from _flat(one)
    else:
        yield values


def python_body(signature: Mapping[str, Any]) -> str:
    """A Python expression of an example request; long tensors as `[1] * 2048`."""
    tensors = []
    for one in signature["inputs"]:
        shape = shape_of(one)
        value, size = _literal(constant(one["dtype"])), prod(shape)
        data = f"[{', '.join([value] * size)}]" if size <= SHOWN_ELEMENTS else f"[{value}] * {size}"
        name, dtype = json.dumps(one["name"]), one["dtype"]
        tensors.append(f'{{"name": {name}, "datatype": "{dtype}", "shape": {shape}, "data": {data}}}')
    return '{"inputs": [' + ", ".join(tensors) + "]}"


def _literal(value: Any) -> str:
    """Double quotes, because the expression may stand between single ones in a shell."""
    return json.dumps(value) if isinstance(value, str) else repr(value)


def is_short(signature: Mapping[str, Any]) -> bool:
    """Whether the whole example can stand in a command line that people read."""
    return all(prod(shape_of(one)) <= SHOWN_ELEMENTS for one in signature["inputs"])


def json_body(signature: Mapping[str, Any]) -> dict[str, Any]:
    """The example request as JSON; only for a short one."""
    return {
        "inputs": [
            {
                "name": one["name"],
                "datatype": one["dtype"],
                "shape": shape_of(one),
                "data": [constant(one["dtype"])] * prod(shape_of(one)),
            }
            for one in signature["inputs"]
        ]
    }
