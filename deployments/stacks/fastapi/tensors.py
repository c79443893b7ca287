"""One tensor from and to the wire, in both forms of the protocol: a JSON list or raw little-endian bytes.

Values are checked as strictly as they can be without a Python loop over them: the type of every element, the
number of elements against the shape, ranges and finiteness. Refused: `np.array(data)` with a guessed dtype,
which turns "1.5" into a number, True into 1, and one long text in a list of numbers into terabytes.
"""

import math
import struct
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from controlplane.core.errors import InvalidInput
from deployments.stacks.fastapi.config import Tensor

Array = npt.NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
# What a JSON element may be, by numpy's kind of the wanted dtype.
_ELEMENTS: dict[str, frozenset[type]] = {
    "b": frozenset({bool}),
    "i": frozenset({int}),
    "u": frozenset({int}),
    "f": frozenset({int, float}),
    "O": frozenset({str}),
}


def wrong(name: str, problem: str) -> InvalidInput:
    return InvalidInput("invalid_tensor", f"The tensor {name[:100]!r} cannot be used.", problem)


def shown(value: Any) -> str:
    """A value of a request for an error text: never long, never deep."""
    return repr(value)[:60] if isinstance(value, str | int | float) else f"a {_json_name(type(value))}"


def check_shape(shape: Any, spec: Tensor) -> tuple[int, ...]:
    """The shape of a request's tensor, fitting the signature. Every dimension is at least 1."""
    if not isinstance(shape, list) or any(type(size) is not int for size in shape):
        raise wrong(spec.name, "Its shape must be a list of whole numbers.")
    fits = len(shape) == len(spec.shape) and all(
        size == wanted if isinstance(wanted, int) else 0 < size < 2**31
        for size, wanted in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        wanted_shape = ", ".join(map(str, spec.shape))
        raise wrong(spec.name, f"Its shape is {shape[:20]}, the model takes [{wanted_shape}].")
    return tuple(shape)


def from_json(data: Any, *, shape: tuple[int, ...], spec: Tensor) -> Array:
    """`data` is the row-major list of all elements, flat or nested as the shape says."""
    flat = _flatten(data, shape=shape, name=spec.name)
    dtype = DTYPES[spec.dtype]
    unwanted = set(map(type, flat)) - _ELEMENTS[dtype.kind]
    if unwanted:
        kinds = ", ".join(sorted(_json_name(kind) for kind in unwanted))
        raise wrong(spec.name, f"Its data has values that are not {spec.dtype}: {kinds}.")
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, dtype=dtype)
    except OverflowError:
        raise wrong(spec.name, f"Its data has a number that does not fit {spec.dtype}.") from None
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise wrong(spec.name, f"Its data has a number that does not fit {spec.dtype}.")
    return array.reshape(shape)


def _flatten(data: Any, *, shape: tuple[int, ...], name: str) -> list[Any]:
    """Goes no deeper than the shape, so nesting costs nothing."""
    if not isinstance(data, list):
        raise wrong(name, "Its data must be a list.")
    flat = data
    if flat and type(flat[0]) is list:
        for inner in shape[1:]:
            if set(map(type, flat)) != {list} or set(map(len, flat)) != {inner}:
                raise wrong(name, f"Its nested data does not have the shape {list(shape)}.")
            flat = list(chain.from_iterable(flat))
    count = math.prod(shape)
    if len(flat) != count:
        raise wrong(name, f"Its data has {len(flat):,} elements, its shape {list(shape)} means {count:,}.")
    return flat


def _json_name(kind: type) -> str:
    names: dict[type, str] = {
        list: "list", dict: "object", str: "text", bool: "true/false", int: "whole number", float: "number",
    }  # fmt: skip
    return names.get(kind, "null")


def from_binary(data: memoryview, *, shape: tuple[int, ...], spec: Tensor) -> Array:
    """`data` is exactly this tensor's bytes. NaN and infinities pass: they are the client's own bits."""
    if spec.dtype == "BYTES":
        return _texts_from_binary(data, shape=shape, name=spec.name)
    dtype = DTYPES[spec.dtype]
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise wrong(spec.name, f"It has {len(data):,} bytes, its shape {list(shape)} means {wanted:,}.")
    if dtype.kind == "b" and np.frombuffer(data, dtype=np.uint8).max(initial=0) > 1:
        raise wrong(spec.name, "Its bytes must be 0 or 1.")
    array = np.frombuffer(data, dtype=dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()


def _texts_from_binary(data: memoryview, *, shape: tuple[int, ...], name: str) -> Array:
    """Each element is a 4-byte little-endian length and that many bytes of UTF-8."""
    texts: list[str] = []
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise wrong(name, "Its bytes end inside a length.")
        (length,) = struct.unpack_from("<I", data, at)
        at += 4 + length
        if at > len(data):
            raise wrong(name, "Its bytes end inside an element.")
        try:
            texts.append(str(data[at - length : at], "utf-8"))
        except UnicodeDecodeError:
            raise wrong(name, f"Element {len(texts)} is not UTF-8.") from None
    if len(texts) != math.prod(shape):
        raise wrong(name, f"It has {len(texts):,} elements, its shape is {list(shape)}.")
    return np.array(texts, dtype=object).reshape(shape)


def to_json(array: Array) -> Any:
    """What orjson serialises as the flat row-major list. NaN and infinities become null: JSON has neither."""
    flat = array.reshape(-1)
    return flat.tolist() if flat.dtype.kind == "O" else np.ascontiguousarray(flat)


def to_binary(array: Array) -> bytes:
    if array.dtype.kind != "O":
        return array.tobytes()
    encoded = [str(text).encode() for text in array.reshape(-1)]
    return b"".join(chain.from_iterable((struct.pack("<I", len(text)), text) for text in encoded))
