"""Looks at an uploaded model in the sandbox: `inspect` is the entry. By its bytes it is decided who reads it."""

import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from controlplane.registry import formats
from controlplane.registry.intake import archive as zips
from controlplane.registry.intake import (
    onnx_child,
    sklearn_model,
    torch_archive,
    torch_script,
    transformers_folder,
)
from controlplane.registry.intake.archive import Member
from controlplane.registry.intake.recognize import Kind, kind_of

type Emit = Callable[[dict[str, Any]], None]
type Tells = Callable[[Sequence[str]], bool]
type Reads = Callable[[zipfile.ZipFile, Sequence[Member], Path], dict[str, Any]]


def _readers(spec: Mapping[str, Any]) -> tuple[tuple[str, Tells, Reads], ...]:
    """Format of an archive, how its members tell, and who reads it."""
    scripts = partial(torch_script.inspect, allowed=bool(spec.get("torchscript")))
    return (
        (formats.TORCH, torch_archive.is_program, torch_archive.inspect),
        (formats.TRANSFORMERS, transformers_folder.is_folder, transformers_folder.inspect),
        (formats.TORCHSCRIPT, torch_script.is_script, scripts),
        (formats.SKLEARN, sklearn_model.is_model, sklearn_model.inspect),
    )


def inspect(spec: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
    """Spec: `path`, `scratch`, `total_bytes`, `torchscript` (whether it is allowed). Returns `format`, `signature`,
    `summary` and `path` of the file to keep.

    Raises Unprocessable with what is wrong and what to do.
    """
    source = Path(spec["path"])
    if kind_of(source) is Kind.ZIP and (found := _of_archive(source, spec, emit)) is not None:
        return found
    return {"format": "onnx", **onnx_child.inspect(spec, emit)}


def _of_archive(source: Path, spec: Mapping[str, Any], emit: Emit) -> dict[str, Any] | None:
    """None where no reader knows it: then it must hold an ONNX model."""
    began = time.monotonic()
    with zips.opened(source) as archive:
        members = zips.members(archive, file_bytes=source.stat().st_size, total_bytes=spec["total_bytes"])
        names = [member.name for member in members]
        reader = next((row for row in _readers(spec) if row[1](names)), None)
        if reader is None:
            return None
        format, _, read = reader
        emit({"kind": "step", "name": f"read {format}", "index": 1, "of": 1})
        target = Path(spec["scratch"]) / f"model.{formats.SUFFIXES[format]}"
        found = read(archive, members, target)
    found["summary"]["seconds"] = time.monotonic() - began
    return {"format": format, "path": str(target), **found}
