"""Intake as the rest of the registry calls it: a stored file goes in, values come out, nothing is opened here.

    with inspected(path, filename="model.onnx") as found:
        ...found.signature, found.summary, found.artifact_path (gone after the block)...

What the child cannot survive (memory, time, a crash) is as much an answer as what it refuses: the model would
do the same to a worker or a replica. Importable without Django, because the child imports this package.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.core.errors import SlipwayError, StorageFull, Unprocessable
from controlplane.core.sandbox import Child, Limits, Outcome
from controlplane.core.sandbox.limits import MIB

_log = logging.getLogger(__name__)
SCRATCH_PREFIX = "intake-"
MAX_DATASET_BYTES = 2 * 1024**3
_CPU_S = 30
_CPU_BYTES_PER_S = {"model_child": 100 * MIB, "dataset_child": 10 * MIB}
"""By entry: the text of a CSV file is parsed a row at a time."""
_MEMORY_FACTOR = 5
"""Bytes of memory per byte of file: the file, its parse, the checker's and the session's copies."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """`artifact_path` is the uploaded file, or with `repacked` what was made of an archive: a single ONNX file, or a
    PyTorch program without anything that could run."""

    format: str
    signature: dict[str, Any]
    summary: dict[str, Any]
    artifact_path: Path
    repacked: bool


@dataclass(frozen=True, kw_only=True)
class DatasetInspection:
    """`labels`: their `kind`, for class numbers also how many `classes` and the `max`; None without labels.
    `artifact_path` is the uploaded npz, or with `repacked` the one that was made of a table."""

    items: int
    arrays: tuple[dict[str, Any], ...]
    labels: dict[str, Any] | None
    artifact_path: Path
    repacked: bool

    @property
    def has_labels(self) -> bool:
        return self.labels is not None

    @property
    def summary(self) -> dict[str, Any]:
        return {"arrays": list(self.arrays), "labels": self.labels}


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What one look may cost, for a small file, and where its scratch folders are made."""

    memory_bytes: int
    wall_s: float
    scratch: Path
    torchscript: bool = False
    """Whether such files are taken; nothing of them runs here."""

    def limits(self, size_bytes: int, *, bytes_per_s: int) -> Limits:
        """Grows with the file, so that a large honest one is not refused for its size."""
        return Limits(
            memory_bytes=self.memory_bytes + _MEMORY_FACTOR * size_bytes,
            cpu_s=_CPU_S + size_bytes // bytes_per_s,
            wall_s=self.wall_s + size_bytes / bytes_per_s,
            file_bytes=2 * 1024**3,
            threads=1,
        )


@contextmanager
def inspected(path: Path, *, filename: str = "", bounds: Bounds | None = None) -> Iterator[Inspection]:
    """Looks at an uploaded ONNX file, PyTorch program or zip archive. `filename` is only for the reader of an error.

    Raises Unprocessable with a code of its own for every kind of refusal; `resource_limit` if the child met a
    limit, `unreadable` if it crashed; StorageFull if there was no room to unpack it.
    """
    bounds = bounds or _bounds()
    with _scratch(bounds.scratch) as scratch:
        spec = {"path": str(path), "scratch": str(scratch), "total_bytes": MAX_DATASET_BYTES}
        spec |= {"torchscript": bounds.torchscript}
        result, outcome = _ask("model_child", spec, path=path, scratch=scratch, bounds=bounds)
        artifact = _inside(Path(result["path"]), allowed=(path, scratch))
        yield Inspection(
            format=str(result["format"]),
            signature=dict(result["signature"]),
            summary=dict(result["summary"]) | {"peak_memory_bytes": outcome.peak_bytes},
            artifact_path=artifact,
            repacked=artifact != path,
        )


@contextmanager
def inspected_dataset(
    path: Path,
    *,
    signature: Mapping[str, Any],
    partly_labelled: bool = False,
    bounds: Bounds | None = None,
) -> Iterator[DatasetInspection]:
    """Looks at an uploaded npz, Parquet or CSV file for a model with this signature. One that may be `partly_labelled`
    has -1 for a label that nobody knows. Raises as `inspected` does."""
    bounds = bounds or _bounds()
    with _scratch(bounds.scratch) as scratch:
        spec = {
            "path": str(path),
            "scratch": str(scratch),
            "signature": dict(signature),
            "least_label": -1 if partly_labelled else 0,
            "total_bytes": MAX_DATASET_BYTES,
        }
        result, _ = _ask("dataset_child", spec, path=path, scratch=scratch, bounds=bounds)
        artifact = _inside(Path(result["path"]), allowed=(path, scratch))
        yield DatasetInspection(
            items=int(result["items"]),
            arrays=tuple(result["arrays"]),
            labels=result["labels"],
            artifact_path=artifact,
            repacked=artifact != path,
        )


def _bounds() -> Bounds:
    from django.conf import settings

    environment = settings.ENVIRONMENT
    return Bounds(
        memory_bytes=environment.intake_memory_bytes,
        wall_s=environment.intake_wall_s,
        scratch=scratch_root(),
        torchscript=environment.torchscript,
    )


def scratch_root() -> Path:
    """Where the folders of looks are, each named with SCRATCH_PREFIX."""
    from django.conf import settings

    return Path(settings.ENVIRONMENT.home) / "scratch"


@contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    """A folder of this look's own; what a killed process leaves, `collect_garbage` finds."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=root, ignore_cleanup_errors=True) as folder:
        yield Path(folder).resolve()


def _ask(
    module: str, spec: Mapping[str, Any], *, path: Path, scratch: Path, bounds: Bounds
) -> tuple[dict[str, Any], Outcome]:
    """The child's result. Raises StorageFull, and Unprocessable for every other end of it."""
    step = ""
    with Child.start(
        entry=f"controlplane.registry.intake.{module}:inspect",
        spec=spec,
        scratch=scratch,
        limits=bounds.limits(path.stat().st_size, bytes_per_s=_CPU_BYTES_PER_S.get(module, 10 * MIB)),
        readable=[path],
    ) as child:
        while not child.finished:
            message = child.poll(1.0)
            if message is not None and message["kind"] == "step":
                step = message["name"]
        outcome = child.outcome()
    if outcome.result is None:
        raise _refusal(outcome, step=step)
    return outcome.result, outcome


def _refusal(outcome: Outcome, *, step: str) -> SlipwayError:
    """What an exception of ours said is for the log only: it names our classes and folders."""
    refusal = outcome.refusal
    if refusal is not None:
        return Unprocessable(refusal.code, refusal.title, refusal.detail)
    where = f"in the step “{step}”" if step else "at the start"
    if outcome.reason in {"timeout", "out_of_memory"}:
        return Unprocessable(
            "resource_limit",
            "The file needs more time or memory than a look at it may cost.",
            f"{outcome.detail} This happened {where}; running it would cost the same again.",
        )
    if outcome.reason == "storage_full":
        return StorageFull(
            "storage_full",
            "There is no room to look at the file.",
            "Nothing of it was kept. An operator has to make room.",
        )
    _log.warning("A look at an upload ended %s: %s (%s)", where, outcome.detail, " | ".join(outcome.log_tail))
    why = outcome.detail if outcome.reason == "crashed" else "The log of Slipway says why."
    return Unprocessable("unreadable", "The file cannot be read safely.", f"The reader ended {where}. {why}")


def _inside(path: Path, *, allowed: Sequence[Path]) -> Path:
    """The child names the file to keep; it is believed only within what it was given."""
    if (
        path.is_symlink()
        or not path.is_file()
        or not any(path == each or each in path.parents for each in allowed)
    ):
        raise Unprocessable("unreadable", "The file cannot be read safely.", "The reader named another file.")
    return path
