"""The first look at an ONNX file: our own, bounded, before any library parses it.

Sizes, counts, depths, names and what every tensor declares; after it a parse costs at most a known factor of
the file. What needs meaning (operators, constants, functions) is looked at after the parse, in `graph`.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.recognize import NOT_ONNX
from controlplane.registry.intake.tensors import MAX_RANK, Tensor, dense_bytes, quoted
from controlplane.registry.intake.wire import Found, Malformed, Reader, TooMany, signed

MAX_FIELDS = 2_000_000
MAX_NODES = 100_000
MAX_INITIALIZERS = 100_000
MAX_GRAPH_DEPTH = 32
MAX_MESSAGE_DEPTH = 100
MAX_NAME_BYTES = 1024
MAX_TEXT_BYTES = 1024**2
MAX_DENSE_BYTES = 512 * 1024**2
"""A tensor that the file only describes (sparse or computed from constants) may need this much memory."""

_LONG_TEXTS = frozenset({"doc_string", "value"})
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
_PACKED_WIDTH = {"float_data": 4, "double_data": 8}


@dataclass(kw_only=True)
class Facts:
    """What the walk saw."""

    nodes: int = 0
    initializers: int = 0
    parameters: int = 0
    parameter_bytes: Counter[int] = field(default_factory=Counter)
    """By number of the element type."""
    external: list[Tensor] = field(default_factory=list)


def walk(data: memoryview) -> Facts:
    """Raises Unprocessable: `not_onnx`, `truncated`, `too_complex`, `bad_name`, `bad_tensor`, `external_data`,
    `resource_limit`."""
    walker = _Walker(data)
    try:
        walker.message(onnx.ModelProto.DESCRIPTOR, 0, len(data), depth=0, graphs=0)
    except TooMany as error:
        raise _too_complex(f"It has more than {MAX_FIELDS:,} fields") from error
    except Malformed as error:
        raise _malformed(error, began_well=walker.began_well) from error
    if not walker.has_graph:
        raise Unprocessable("not_onnx", NOT_ONNX, "It holds no graph. Export the model again.")
    return walker.facts


def _malformed(error: Malformed, *, began_well: bool) -> Unprocessable:
    if error.truncated and began_well:
        return Unprocessable(
            "truncated", "The file ends in the middle of the model.", "Upload the whole file again."
        )
    return Unprocessable(
        "not_onnx", NOT_ONNX, f"Its bytes are not those of a model: {error}. Check which file you chose."
    )


def _too_complex(problem: str) -> Unprocessable:
    return Unprocessable("too_complex", "The model is too complex to be read safely.", f"{problem}.")


class _Walker:
    def __init__(self, data: memoryview) -> None:
        self.facts = Facts()
        self.began_well = False
        self.has_graph = False
        self._data = data
        self._reader = Reader(data, most_fields=MAX_FIELDS)

    def message(self, descriptor: Any, start: int, end: int, *, depth: int, graphs: int) -> None:
        self._enter(descriptor.name, depth, graphs)
        for found in self._reader.fields(descriptor, start, end):
            if depth == 0:
                self._at_top(found)
            child = found.field.message
            if child is None:
                if found.field.text:
                    self._text(descriptor.name, found)
            elif child.name == "TensorProto":
                self._tensor(found, is_parameter=found.field.name == "initializer")
            elif child.name == "SparseTensorProto":
                self._sparse(found)
            else:
                inner = graphs + (child.name == "GraphProto")
                self.message(child, found.start, found.end, depth=depth + 1, graphs=inner)

    def _enter(self, name: str, depth: int, graphs: int) -> None:
        if graphs > MAX_GRAPH_DEPTH:
            raise _too_complex(f"Its graphs are nested more than {MAX_GRAPH_DEPTH} deep")
        if depth >= MAX_MESSAGE_DEPTH:
            raise _too_complex(f"Its messages are nested more than {MAX_MESSAGE_DEPTH} deep")
        if name == "NodeProto":
            self.facts.nodes += 1
            if self.facts.nodes > MAX_NODES:
                raise _too_complex(f"It has more than {MAX_NODES:,} nodes")

    def _at_top(self, found: Found) -> None:
        if found.field.name == "ir_version":
            self.began_well = 0 < found.value < 1000
        elif found.field.name == "graph":
            self.has_graph = True

    def _text(self, message: str, found: Found) -> str:
        name = found.field.name
        most = MAX_TEXT_BYTES if name in _LONG_TEXTS else MAX_NAME_BYTES
        if found.end - found.start > most:
            raise _bad_name(
                f"{message}.{name} has {found.end - found.start:,} bytes, at most {most:,} are read"
            )
        try:
            text = str(self._data[found.start : found.end], "utf-8")
        except UnicodeDecodeError as error:
            raise Malformed(f"{message}.{name} is not text") from error
        if name not in _LONG_TEXTS and CONTROL.search(text):
            shown = text.encode("unicode_escape").decode()
            raise _bad_name(f"{message}.{name} is {quoted(shown)}, which contains control characters")
        return text

    def _tensor(self, found: Found, *, is_parameter: bool) -> Tensor:
        tensor = Tensor()
        for part in self._reader.fields(found.field.message, found.start, found.end):
            self._tensor_part(tensor, part)
        tensor.check()
        if tensor.is_external:
            self.facts.external.append(tensor)
        if is_parameter:
            self._count(tensor)
        return tensor

    def _count(self, tensor: Tensor) -> None:
        self.facts.initializers += 1
        if self.facts.initializers > MAX_INITIALIZERS:
            raise _too_complex(f"It has more than {MAX_INITIALIZERS:,} initializers")
        self.facts.parameters += tensor.elements
        self.facts.parameter_bytes[tensor.data_type] += tensor.size_bytes

    def _tensor_part(self, tensor: Tensor, part: Found) -> None:
        match part.field.name:
            case "dims":
                if len(tensor.dims) <= MAX_RANK:
                    tensor.dims += self._numbers(part)
            case "data_type":
                tensor.data_type = part.value
            case "name":
                tensor.name = self._text("TensorProto", part)
            case "raw_data":
                tensor.raw_bytes = part.end - part.start
            case "segment":
                tensor.segmented = True
            case "data_location":
                tensor.is_external = part.value == onnx.TensorProto.EXTERNAL
            case "external_data":
                self._external(tensor, part)
            case name if name.endswith("_data"):
                tensor.values[name] = tensor.values.get(name, 0) + self._values_in(part)
            case _ if part.field.text:
                self._text("TensorProto", part)

    def _external(self, tensor: Tensor, entry: Found) -> None:
        texts = {
            part.field.name: self._text("StringStringEntryProto", part)
            for part in self._reader.fields(entry.field.message, entry.start, entry.end)
        }
        key, value = texts.get("key", ""), texts.get("value", "")
        if key in tensor.external:
            raise tensor.external_refused(f"has the external key {quoted(key)} twice")
        if len(value) > MAX_NAME_BYTES or CONTROL.search(value):
            raise tensor.external_refused(f"has an impossible {quoted(key)}")
        tensor.external[key] = value

    def _values_in(self, part: Found) -> int:
        if not part.packed:
            return 1
        if part.field.name in _PACKED_WIDTH:
            count, rest = divmod(part.end - part.start, _PACKED_WIDTH[part.field.name])
            if rest:
                raise Malformed(f"{part.field.name} is cut")
            return count
        # Every varint ends with the one byte of it that is below 128.
        data = np.frombuffer(self._data[part.start : part.end], dtype=np.uint8)
        return int(np.count_nonzero(data < 0x80))

    def _numbers(self, part: Found) -> list[int]:
        if not part.packed:
            return [signed(part.value)]
        numbers: list[int] = []
        at = part.start
        while at < part.end and len(numbers) <= MAX_RANK:
            value, at = self._reader.varint(at, part.end)
            numbers.append(signed(value))
        return numbers

    def _sparse(self, found: Found) -> None:
        dims: list[int] = []
        values: Tensor | None = None
        for part in self._reader.fields(found.field.message, found.start, found.end):
            if part.field.name == "dims":
                dims += self._numbers(part) if len(dims) <= MAX_RANK else []
            else:
                tensor = self._tensor(part, is_parameter=False)
                values = tensor if part.field.name == "values" else values
        if values is None:
            raise Malformed("a sparse tensor without values")
        dense = Tensor(name=values.name, dims=dims, data_type=values.data_type)
        if len(dims) > MAX_RANK or any(size < 0 for size in dims):
            raise dense.bad(f"has impossible dimensions {dims[:MAX_RANK]}")
        if dense_bytes(dense.data_type, dense.elements) > MAX_DENSE_BYTES:
            raise too_much_memory(f"The sparse tensor {quoted(dense.name)}", dense.size_bytes)


def _bad_name(problem: str) -> Unprocessable:
    return Unprocessable(
        "bad_name", "A name in the model cannot be used.", f"{problem}. Export the model again."
    )


def too_much_memory(what: str, size_bytes: int) -> Unprocessable:
    return Unprocessable(
        "resource_limit",
        "The model would need more memory than allowed.",
        f"{what} would take {size_bytes / 1024**2:,.0f} MiB. A value that the file describes but does not hold "
        f"may take {MAX_DENSE_BYTES // 1024**2:,} MiB.",
    )
