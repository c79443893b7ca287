"""A `.pt2` of `torch.export.save` becomes one that holds data only; PyTorch is not needed for it.

It is written anew from what is known to be harmless: a member that is not known refuses the file, the sample inputs
(which PyTorch unpickles when it loads them) are left empty, and the JSON passes `torch_program`. Refused: scanners,
which called a hostile file clean, and `weights_only`, which PyTorch retries without.
"""

import json
import math
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake import torch_signature
from controlplane.registry.intake.archive import Member
from controlplane.registry.intake.tensors import quoted
from controlplane.registry.intake.torch_program import as_described, bad_program, parsed, unsafe

MAX_JSON_BYTES = 128 * 1024**2
_CHUNK = 1024**2
LONG_AGO = (1980, 1, 1, 0, 0, 0)
_ELEMENT_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 12: 1, 13: 2, 28: 2, 29: 1, 30: 1, 31: 1,
    32: 1, 33: 1, 34: 4, 35: 8,
}  # fmt: skip
"""By number of `torch._export.serde.schema.ScalarType`."""
_STATED = {
    "archive_format": re.compile(rb"pt2"),
    "archive_version": re.compile(rb"\d{1,4}"),
    "byteorder": re.compile(rb"little"),
    ".data/version": re.compile(rb"\d{1,4}\n?"),
}
_DROPPED = re.compile(r"\.data/serialization_id|\.format_version")
_EMPTIED = re.compile(r"data/sample_inputs/\w+\.pt", re.ASCII)
_MODEL = re.compile(r"models/(\w+)\.json", re.ASCII)
_CONFIG = re.compile(r"data/(weights|constants)/\w+_\1_config\.json", re.ASCII)
_VALUES = re.compile(r"data/(?:weights/weight|constants/tensor)_\d{1,9}")
_REFUSED = (
    (re.compile(r"data/aotinductor/.*"), "It holds compiled parts, which are machine code"),
    (
        re.compile(r"data/constants/(?:custom|opaque)_obj.*"),
        "It holds a custom object, which is stored as a pickle",
    ),
    (re.compile(r"data/(?:weights|constants)/\w+\.pt", re.ASCII), "It stores its weights as a pickle"),
    (re.compile(r"extra/.*"), "It holds extra files"),
)


def is_program(names: Sequence[str]) -> bool:
    """By the members that every `.pt2` has."""
    inner = {name.partition("/")[2] for name in names}
    return "archive_format" in inner


def inspect(archive: zipfile.ZipFile, members: Sequence[Member], target: Path) -> dict[str, Any]:
    """Writes the harmless copy to `target` and returns `signature` and `summary`. Raises Unprocessable:
    `unsafe_format`, `bad_program`, `unsupported_signature`, `broken_archive`."""
    files = _known(members)
    (model,) = [name for name in files if _MODEL.fullmatch(name)] or [""]
    if not model:
        raise bad_program("it holds no program")
    stated = {name: _read(archive, files[name]) for name in _STATED if name in files}
    for name, pattern in _STATED.items():
        if name not in stated or not pattern.fullmatch(stated[name]):
            raise bad_program(f"its {quoted(name)} is {stated.get(name, b'missing')[:20]!r}")
    jsons = {name: parsed(_read(archive, files[name]), what=name) for name in files if _is_json(name)}
    tensors = [row for name in jsons if name != model for row in _tensors(name, jsons[name], files)]
    found = torch_signature.read(jsons[model])
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as out:
        for name, member in files.items():
            with out.open(zipfile.ZipInfo(f"model/{name}", LONG_AGO), "w", force_zip64=True) as file:
                if name in jsons:
                    file.write(json.dumps(jsons[name]).encode())
                elif not _EMPTIED.fullmatch(name):
                    _copy(archive, member, file)
    summary = torch_signature.summary(jsons[model], tensors) | {"size_bytes": target.stat().st_size}
    return {"signature": found, "summary": summary}


def _is_json(name: str) -> bool:
    return bool(_MODEL.fullmatch(name) or _CONFIG.fullmatch(name))


def _known(members: Sequence[Member]) -> dict[str, Member]:
    """Members to keep by their name below the archive's one folder."""
    roots = {member.name.partition("/")[0] for member in members}
    if len(roots) != 1:
        raise unsafe("It has more than one folder at its top")
    files: dict[str, Member] = {}
    for member in members:
        name = member.name.partition("/")[2]
        if _DROPPED.fullmatch(name):
            continue
        for pattern, why in _REFUSED:
            if pattern.fullmatch(name):
                raise unsafe(f"{why} ({quoted(name)})")
        if not (name in _STATED or _is_json(name) or _EMPTIED.fullmatch(name) or _VALUES.fullmatch(name)):
            raise unsafe(f"It has the member {quoted(name)}, which a program does not need")
        files[name] = member
    programs = [name for name in files if _MODEL.fullmatch(name)]
    if len(programs) > 1:
        raise bad_program(f"it holds {len(programs)} programs; one is registered at a time")
    return files


def _tensors(name: str, config: Mapping[str, Any], files: Mapping[str, Member]) -> list[tuple[int, int]]:
    """Number of the element type and count of elements of every tensor, each within its member."""
    folder = name.rpartition("/")[0]
    rows = config.get("config")
    if not isinstance(rows, dict):
        raise bad_program(f"{quoted(name)} lists no tensors")
    with as_described(quoted(name)):
        return [_tensor(key, row, folder, files) for key, row in rows.items()]


def _tensor(key: str, row: Mapping[str, Any], folder: str, files: Mapping[str, Member]) -> tuple[int, int]:
    meta, member = row["tensor_meta"], files.get(f"{folder}/{row['path_name']}")
    if row["use_pickle"] is not False or member is None:
        raise unsafe(f"The values of {quoted(key)} are not stored as plain numbers")
    width = _ELEMENT_BYTES.get(meta["dtype"])
    sizes, strides = ([size["as_int"] for size in meta[part]] for part in ("sizes", "strides"))
    numbers = [*sizes, *strides, meta["storage_offset"]["as_int"]]
    if width is None or len(sizes) != len(strides) or any(type(n) is not int or n < 0 for n in numbers):
        raise bad_program(f"the tensor {quoted(key)} has an impossible type or shape")
    elements = math.prod(sizes)
    last = meta["storage_offset"]["as_int"] + sum(
        (size - 1) * stride for size, stride in zip(sizes, strides, strict=True)
    )
    if elements and (last + 1) * width > member.size_bytes:
        raise bad_program(
            f"the tensor {quoted(key)} needs {(last + 1) * width:,} bytes but {member.size_bytes:,} are stored"
        )
    return meta["dtype"], elements


def _read(archive: zipfile.ZipFile, member: Member) -> bytes:
    if member.size_bytes > MAX_JSON_BYTES:
        raise bad_program(f"{quoted(member.name)} has more than {MAX_JSON_BYTES:,} bytes")
    with unbroken(member), archive.open(member.info) as source:
        return source.read(MAX_JSON_BYTES)


def _copy(archive: zipfile.ZipFile, member: Member, target: Any) -> None:
    with unbroken(member), archive.open(member.info) as source:
        while chunk := source.read(_CHUNK):
            target.write(chunk)


class unbroken:
    """Reading a member: what its compressed bytes make `zipfile` raise is refused as `broken_archive`."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, zipfile.BadZipFile | zlib.error | EOFError | NotImplementedError | RuntimeError):
            raise Unprocessable(
                "broken_archive",
                "The archive is damaged.",
                f"The member {quoted(self._member.name)} cannot be read. Pack it again.",
            ) from error
