"""ONNX files a weight at a time: the model in memory and one weight, where `onnx.save` needs three times the model."""

from pathlib import Path
from typing import Any

GRAPH, INITIALIZER = 7, 5
"""Numbers of these fields in ONNX's own schema, onnx.proto."""
_LENGTH_DELIMITED = 2
_SEVEN_BITS, _MORE = 0x7F, 0x80


def write(model: Any, path: Path) -> None:
    """An `onnx.ModelProto` as `onnx.save` writes it, but for the order of fields. The same model makes the same bytes.

    Protobuf's wire format: https://protobuf.dev/programming-guides/encoding/
    """
    rest = _without(model.graph, "initializer").SerializeToString(deterministic=True)
    weights = model.graph.initializer
    heads = [_head(INITIALIZER, weight.ByteSize()) for weight in weights]
    size = len(rest) + sum(len(head) + weight.ByteSize() for head, weight in zip(heads, weights, strict=True))
    with path.open("wb") as file:
        file.write(_without(model, "graph").SerializeToString(deterministic=True))
        file.write(_head(GRAPH, size))
        file.write(rest)
        for head, weight in zip(heads, weights, strict=True):
            file.write(head)
            file.write(weight.SerializeToString(deterministic=True))


def _without(message: Any, name: str) -> Any:
    """A copy that lacks this field."""
    copy = type(message)()
    for field, value in message.ListFields():
        if field.name == name:
            continue
        if field.is_repeated:
            getattr(copy, field.name).extend(value)
        elif field.message_type:
            getattr(copy, field.name).CopyFrom(value)
        else:
            setattr(copy, field.name, value)
    return copy


def _head(field: int, size: int) -> bytes:
    return _varint(field << 3 | _LENGTH_DELIMITED) + _varint(size)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > _SEVEN_BITS:
        parts.append(number & _SEVEN_BITS | _MORE)
        number >>= 7
    return bytes([*parts, number])
