"""Reads protobuf's wire format without building anything, so that a hostile file costs nothing but a walk.

A parser turns two bytes of file into hundreds of bytes of object; this reader only looks, within caps. Refused
beyond what protobuf refuses: a singular field that occurs twice (parsers merge it, so two readers would see two
models), groups, and fields with another wire type than the schema's. Field numbers come from onnx's own schema.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

_MESSAGE, _STRING, _BYTES = 11, 9, 12
_WIRE_OF = {
    1: 1,
    2: 5,
    3: 0,
    4: 0,
    5: 0,
    6: 1,
    7: 5,
    8: 0,
    9: 2,
    11: 2,
    12: 2,
    13: 0,
    14: 0,
    15: 5,
    16: 1,
    17: 0,
    18: 0,
}
_FIXED = {1: 8, 5: 4}


class Malformed(Exception):
    """The bytes are no such message. `truncated`: they end in the middle of one that began well."""

    def __init__(self, reason: str, *, truncated: bool = False) -> None:
        super().__init__(reason)
        self.truncated = truncated


class TooMany(Exception):
    """More fields than a model has."""


@dataclass(frozen=True)
class Field:
    name: str
    wire: int
    repeated: bool
    message: Any
    """Descriptor of the message in it, None for values."""
    text: bool


@dataclass(frozen=True)
class Found:
    """One occurrence: `value` for varints; the bytes are `start` to `end`, also when a repeated number is
    `packed`."""

    field: Field
    value: int
    start: int
    end: int
    packed: bool


@cache
def _table(descriptor: Any) -> dict[int, Field]:
    return {
        field.number: Field(
            name=field.name,
            wire=_WIRE_OF[field.type],
            repeated=field.is_repeated,
            message=field.message_type if field.type == _MESSAGE else None,
            text=field.type == _STRING,
        )
        for field in descriptor.fields
    }


class Reader:
    """Reads fields of messages in `data`. All reads together see at most `most_fields` fields."""

    def __init__(self, data: memoryview, *, most_fields: int) -> None:
        self.data = data
        self._left = most_fields

    def fields(self, descriptor: Any, start: int, end: int) -> Iterator[Found]:
        """The known fields of the message that fills `start` to `end`. Raises Malformed, TooMany."""
        table = _table(descriptor)
        seen: set[int] = set()
        at = start
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise TooMany
            key, at = self.varint(at, end)
            number, wire = key >> 3, key & 7
            value, body, at = self._value(wire, at, end)
            field = table.get(number)
            if number == 0 or key > 0xFFFF_FFFF:
                raise Malformed("a field without a valid number")
            if field is None:
                continue
            packed = field.repeated and wire == 2 != field.wire
            if wire != field.wire and not packed:
                raise Malformed(f"{descriptor.name}.{field.name} has an impossible type")
            if not field.repeated and number in seen:
                raise Malformed(f"{descriptor.name}.{field.name} occurs twice")
            seen.add(number)
            yield Found(field, value, body, at, packed)

    def _value(self, wire: int, at: int, end: int) -> tuple[int, int, int]:
        """Returns the value of a varint, where the bytes begin, and where the next field does."""
        if wire == 0:
            value, after = self.varint(at, end)
            return value, at, after
        if wire == 2:
            length, at = self.varint(at, end)
        elif wire in _FIXED:
            length = _FIXED[wire]
        else:
            raise Malformed("groups are not used in models")
        if length > end - at:
            raise Malformed("a field is longer than what holds it", truncated=end == len(self.data))
        return length, at, at + length

    def varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        data = self.data
        while at < end:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, at
            shift += 7
            if shift > 63:
                raise Malformed("a number is too long")
        raise Malformed("a number has no end", truncated=end == len(self.data))


def signed(value: int) -> int:
    """An int64 as protobuf writes it."""
    return value - (1 << 64) if value >= 1 << 63 else value
