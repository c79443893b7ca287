"""Reads an uploaded data set, inputs and labels, in the sandbox: `inspect` is the entry. Tables become an npz first.

Headers are read by our own code and held against sizes before an array exists; values are looked at in pieces.
`numpy.load` is not used: its header is Python source text and its objects are pickles.
"""

import ast
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile
from zlib import error as ZlibError

import numpy as np

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake import archive as zips
from controlplane.registry.intake import tables
from controlplane.registry.intake.archive import Member
from controlplane.registry.intake.recognize import empty_file
from controlplane.registry.intake.tensors import MAX_RANK, quoted
from controlplane.registry.metrics import CLASSES, NUMBERS, TEXTS, TOKENS, VECTORS

LABELS = "labels"
MAX_HEADER_BYTES = 10_000
MAX_ITEMS = 10_000_000
_CHUNK_ITEMS = 1024**2
_DESCR = re.compile(r"[<>|=]?([biufUS])(\d{1,4})")
_NAMES = {
    "b1": "BOOL", "i1": "INT8", "i2": "INT16", "i4": "INT32", "i8": "INT64", "u1": "UINT8", "u2": "UINT16",
    "u4": "UINT32", "u8": "UINT64", "f2": "FP16", "f4": "FP32", "f8": "FP64",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Array:
    name: str
    dtype: str
    descr: str
    shape: tuple[int, ...]
    member: Member
    header_bytes: int


def inspect(spec: Mapping[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Spec: `path`, `scratch`, `signature`, `least_label`, `total_bytes`. Returns `items`, `arrays`, `labels` (None
    without) and the `path` of the npz: the one that was sent, or the one that was made of a table.

    Raises Unprocessable (`empty_file`, `not_npz`, `unsafe_archive`, `unsafe_format`, `bad_array`), and as
    `tables.to_npz` does.
    """
    path = Path(spec["path"])
    with path.open("rb") as file:
        magic = file.read(4)
    if not magic:
        raise empty_file()
    if magic not in (b"PK\x03\x04", b"PK\x05\x06"):
        emit({"kind": "step", "name": "table", "index": 1, "of": 2})
        made = Path(spec["scratch"]) / "items.npz"
        tables.to_npz(path, made, signature=spec["signature"], total_bytes=spec["total_bytes"])
        path = made
    with zips.opened(path) as archive:
        size, most = path.stat().st_size, spec["total_bytes"]
        members = zips.members(archive, file_bytes=size, total_bytes=most, paths=False)
        arrays = {array.name: array for array in (_array(archive, member) for member in members)}
        items = _fit(arrays, spec["signature"])
        emit({"kind": "step", "name": "values", "index": 1, "of": 1})
        labelled = arrays.pop(LABELS, None)
        labels = _labels(archive, labelled, items, begin_at=spec["least_label"])
        for array in arrays.values():
            _check_values(archive, array)
        if labelled is not None and labels is not None and labels["kind"] != CLASSES:
            _check_values(archive, labelled)
    rows = [{"name": each.name, "dtype": each.dtype, "shape": list(each.shape)} for each in arrays.values()]
    return {"items": items, "arrays": rows, "labels": labels, "path": str(path)}


def _array(archive: ZipFile, member: Member) -> Array:
    name = member.name.removesuffix(".npy")
    if name == member.name:
        raise _bad(member.name, "is not an array (.npy)")
    try:
        with archive.open(member.info) as file:
            head = file.read(12)
            length, skip = _header_length(name, head)
            file.seek(0)
            text = file.read(skip + length)[skip:].decode("latin-1")
    except (BadZipFile, ZlibError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise _bad(name, "is damaged") from error
    descr, shape = _header(name, text)
    dtype, item_bytes = _dtype(name, descr)
    declared = math.prod(shape) * item_bytes
    if declared != member.size_bytes - skip - length:
        raise _bad(name, f"declares {declared:,} bytes but holds {member.size_bytes - skip - length:,}")
    return Array(name=name, dtype=dtype, descr=descr, shape=shape, member=member, header_bytes=skip + length)


def _header_length(name: str, head: bytes) -> tuple[int, int]:
    """Length of the header and where it begins."""
    if len(head) < 12 or not head.startswith(b"\x93NUMPY"):
        raise _bad(name, "is not a NumPy array")
    if head[6] == 1:
        length, skip = struct.unpack_from("<H", head, 8)[0], 10
    elif head[6] in (2, 3):
        length, skip = struct.unpack_from("<I", head, 8)[0], 12
    else:
        raise _bad(name, f"has the unknown format version {head[6]}")
    if length > MAX_HEADER_BYTES:
        raise _bad(name, "has a header that is too long")
    return length, skip


def _header(name: str, text: str) -> tuple[str, tuple[int, ...]]:
    try:
        header = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise _bad(name, "has a header that cannot be read") from error
    if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
        raise _bad(name, "has a header that cannot be read")
    descr, shape = header["descr"], header["shape"]
    if not isinstance(descr, str):
        raise _bad(name, "has named columns; only plain numbers and text are read")
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise _bad(name, "has an impossible shape")
    if len(shape) > MAX_RANK:
        raise _bad(name, f"has {len(shape)} dimensions; at most {MAX_RANK} are read")
    return descr, shape


def _dtype(name: str, descr: str) -> tuple[str, int]:
    """The type's name and its bytes per item."""
    if "O" in descr:
        raise Unprocessable(
            "unsafe_format",
            "Arrays of Python objects can run code when they are loaded, so they are never opened.",
            f"The array {quoted(name)} holds objects. Save it with a numeric or text dtype.",
        )
    found = _DESCR.fullmatch(descr)
    if found is None or (found[1] not in "US" and found[1] + found[2] not in _NAMES):
        raise _bad(name, f"has the type {quoted(descr)}, which no model takes")
    kind, width = found[1], int(found[2])
    if kind in "US":
        return "BYTES", width * (4 if kind == "U" else 1)
    return _NAMES[f"{kind}{width}"], width


def _fit(arrays: Mapping[str, Array], signature: Mapping[str, Any]) -> int:
    """The number of items, if names, types and shapes are those of the signature."""
    ports = {port["name"]: port for port in signature["inputs"]}
    missing, unknown = ports.keys() - arrays.keys(), arrays.keys() - ports.keys() - {LABELS}
    if missing or unknown:
        said = [f"lacks {', '.join(quoted(name) for name in sorted(missing)[:5])}"] if missing else []
        said += [f"has {', '.join(quoted(name) for name in sorted(unknown)[:5])}"] if unknown else []
        raise Unprocessable(
            "bad_array",
            "The arrays are not the model's inputs.",
            f"The file {' and '.join(said)}; it must have one array per input and may have {quoted(LABELS)}.",
        )
    for name, port in ports.items():
        _fit_port(arrays[name], port, batched=signature["batch_axis"] == 0)
    counts = {name: array.shape[0] if array.shape else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1:
        said_counts = ", ".join(f"{quoted(name)} {count:,}" for name, count in sorted(counts.items())[:6])
        raise Unprocessable(
            "bad_array", "The arrays do not have the same number of items.", f"Items: {said_counts}."
        )
    items = next(iter(counts.values()))
    if not 0 < items <= MAX_ITEMS:
        raise Unprocessable("bad_array", "The data set has no usable items.", f"It has {items:,} items.")
    return items


def _fit_port(array: Array, port: Mapping[str, Any], *, batched: bool) -> None:
    """First axis: items. The others are the input's; without its batch axis, if it has one."""
    if array.dtype != port["dtype"]:
        raise _bad(array.name, f"has the type {array.dtype}, the model takes {port['dtype']}")
    wanted = port["shape"][1:] if batched else port["shape"]
    given = array.shape[1:]
    fits = len(given) == len(wanted) and all(
        isinstance(size, str) or size == given_size for size, given_size in zip(wanted, given, strict=True)
    )
    if not array.shape or not fits:
        shown = ", ".join(map(str, ("items", *wanted)))
        raise _bad(array.name, f"has the shape {array.shape}, the model takes ({shown})")


def _labels(archive: ZipFile, array: Array | None, items: int, *, begin_at: int) -> dict[str, Any] | None:
    """What kind they are, in the words of `registry.metrics`."""
    if array is None:
        return None
    whole = array.dtype.startswith(("INT", "UINT"))
    match len(array.shape):
        case 1 if whole:
            return {"kind": CLASSES, **_classes(archive, array, items, begin_at=begin_at)}
        case 1 if array.dtype == "BYTES":
            return {"kind": TEXTS}
        case 2 if whole:
            return {"kind": TOKENS, "length": array.shape[1]}
        case 1 if array.dtype.startswith("FP"):
            return {"kind": NUMBERS}
        case axes if axes > 1 and array.dtype.startswith("FP"):
            return {"kind": VECTORS, "shape": list(array.shape[1:])}
    raise _bad(
        LABELS,
        f"has the type {array.dtype} and the shape {array.shape}; it must have one class number, number, text, "
        "vector or row of whole numbers per item",
    )


def _classes(archive: ZipFile, array: Array, items: int, *, begin_at: int) -> dict[str, int]:
    least, most = items, 0
    seen: set[int] = set()
    for chunk in _chunks(archive, array):
        least, most = min(least, int(chunk.min())), max(most, int(chunk.max()))
        seen.update(np.unique(chunk).tolist())
    if least < begin_at:
        raise _bad(LABELS, f"holds {least}; class numbers begin at 0")
    return {"classes": len(seen - {-1}), "max": most}


def _check_values(archive: ZipFile, array: Array) -> None:
    """Reads every value, so that a damaged member is found now, and refuses NaN and infinity."""
    for chunk in _chunks(archive, array):
        if chunk.dtype.kind == "f" and not np.isfinite(chunk).all():
            raise _bad(array.name, "contains NaN or infinity")


def _chunks(archive: ZipFile, array: Array) -> Any:
    dtype = np.dtype(array.descr)
    if not dtype.itemsize:
        raise _bad(array.name, "holds empty text")
    try:
        with archive.open(array.member.info) as file:
            file.read(array.header_bytes)
            left = math.prod(array.shape) * dtype.itemsize
            while left:
                data = file.read(min(left, _CHUNK_ITEMS * dtype.itemsize))
                if not data or len(data) % dtype.itemsize:
                    raise _bad(array.name, "is cut off")
                left -= len(data)
                yield np.frombuffer(data, dtype=dtype)
            file.read(1)  # reaching the end compares the checksum
    except (BadZipFile, ZlibError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise _bad(array.name, "is damaged") from error


def _bad(name: str, problem: str) -> Unprocessable:
    return Unprocessable(
        "bad_array", "An array of the data set cannot be used.", f"The array {quoted(name)} {problem}."
    )
