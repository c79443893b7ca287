"""Items to run through a model: from a stored set, or made up so that they respect the signature.

An npz file comes from a user. It is read without pickles, its unpacked size is checked before anything is
unpacked, and every refusal says what to change (BADINPUT D11).
"""

import hashlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from controlplane.core.errors import Unprocessable
from optimizer.workbench.signature import Array, Feed, Signature, TensorSpec

MAX_UNPACKED_BYTES = 4 * 2**30
LABELS = "labels"


class Items(Protocol):
    """`feed(indices)` makes one request of those items; a model without a batch axis takes one at a time."""

    @property
    def labels(self) -> Array | None: ...

    def __len__(self) -> int: ...

    def feed(self, indices: Sequence[int]) -> Feed: ...


@dataclass(frozen=True, kw_only=True)
class StoredItems:
    """Arrays of one length, one per model input, first axis the items."""

    arrays: Mapping[str, Array]
    labels: Array | None
    batched: bool
    # Inputs whose item already has the whole shape the model wants (no batch axis to strip).
    whole: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def feed(self, indices: Sequence[int]) -> Feed:
        chosen = list(indices)
        if not self.batched and len(chosen) != 1:
            raise ValueError("a model without a batch axis takes one item at a time")
        # An item of a single number is no array in NumPy, and ONNX Runtime takes arrays only.
        return {
            name: np.asarray(array[chosen[0]]) if name in self.whole else array[chosen]
            for name, array in self.arrays.items()
        }


def batches(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_npz(path: Path, signature: Signature) -> StoredItems:
    """Reads a set and checks it against the signature.

    Raises Unprocessable: `dataset_unreadable`, `dataset_too_large`, `dataset_inputs`, `dataset_dtype`,
    `dataset_shape`, `dataset_not_finite`, `dataset_empty`, `dataset_labels`.
    """
    members = _members(path)
    wanted = {spec.name for spec in signature.inputs}
    if missing := sorted(wanted - members):
        raise Unprocessable(
            "dataset_inputs",
            "The set lacks inputs of the model.",
            f"It has {_listed(members)}; missing: {_listed(missing)}.",
        )
    arrays = _arrays(path, wanted | ({LABELS} & members))
    labels = _labels(arrays.pop(LABELS)) if LABELS in arrays and LABELS not in wanted else None
    whole = set()
    fitted = {}
    for spec in signature.inputs:
        array = arrays[spec.name]
        if _is_whole(array, spec, batched=signature.batched):
            whole.add(spec.name)
        fitted[spec.name] = _cast(array, spec)
    lengths = {name: len(array) for name, array in arrays.items()}
    if labels is not None:
        lengths[LABELS] = len(labels)
    if len(set(lengths.values())) != 1:
        raise Unprocessable("dataset_shape", "The arrays of the set have different lengths.", f"{lengths}.")
    if not next(iter(lengths.values())):
        raise Unprocessable("dataset_empty", "The set has no items.")
    return StoredItems(arrays=fitted, labels=labels, batched=signature.batched, whole=frozenset(whole))


def _members(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise Unprocessable("dataset_unreadable", "This is not an npz file.", str(error)) from error
    unpacked = sum(info.file_size for info in infos)
    if unpacked > MAX_UNPACKED_BYTES:
        raise Unprocessable(
            "dataset_too_large",
            "The set is too large when unpacked.",
            f"{unpacked:,} bytes; at most {MAX_UNPACKED_BYTES:,} are read.",
        )
    return {info.filename.removesuffix(".npy") for info in infos}


def _arrays(path: Path, names: set[str]) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in sorted(names)}
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise Unprocessable(
            "dataset_unreadable",
            "The set cannot be read.",
            f"{error} Arrays of plain numbers are read; pickled objects are not.",
        ) from error


def _labels(array: Array) -> Array:
    """Class numbers, numbers, texts, rows of token numbers or vectors: see `registry.metrics`."""
    match array.dtype.kind, array.ndim:
        case "i" | "u", 1 | 2:
            return array.astype(np.int64)
        case "U" | "S", 1:
            return array
        case "f", 1:
            return array.astype(np.float64)
        case "f", _:
            return array.astype(np.float32)
    raise Unprocessable(
        "dataset_labels",
        "The labels are none that can be scored.",
        f"“labels” is {array.dtype} {list(array.shape)}; one number, text, vector or row of integers is read.",
    )


def is_classes(labels: Array) -> bool:
    return labels.dtype.kind in "iu" and labels.ndim == 1


def label_summary(labels: Array) -> dict[str, Any]:
    """What kind they are, as intake says it."""
    if is_classes(labels):
        return {"kind": "classes"}
    if labels.dtype.kind in "iu":
        return {"kind": "tokens"}
    if labels.dtype.kind == "f" and labels.ndim == 1:
        return {"kind": "numbers"}
    return (
        {"kind": "vectors", "shape": list(labels.shape[1:])}
        if labels.dtype.kind == "f"
        else {"kind": "texts"}
    )


def _is_whole(array: Array, spec: TensorSpec, *, batched: bool) -> bool:
    """Raises Unprocessable when no reading of the array fits the signature."""
    sliced = batched or (bool(spec.shape) and (spec.shape[0] == 1 or isinstance(spec.shape[0], str)))
    if sliced and array.ndim == len(spec.shape) and _fits(array.shape[1:], spec.shape[1:]):
        return False
    if not batched and array.ndim == len(spec.shape) + 1 and _fits(array.shape[1:], spec.shape):
        return True
    item = list(spec.shape[1:] if sliced else spec.shape)
    raise Unprocessable(
        "dataset_shape",
        f"The items for input “{spec.name}” have the wrong shape.",
        f"The array is {list(array.shape)}; the first axis is the items and the model takes {item} for each.",
    )


def _fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(want, str) or size == want for size, want in zip(shape, wanted, strict=True)
    )


def _cast(array: Array, spec: TensorSpec) -> Array:
    """The same numbers in the model's type; refuses where they would become other numbers."""
    target = spec.numpy_dtype
    if target.kind == "O":
        if array.dtype.kind not in "US":
            raise _wrong_dtype(array, spec)
        return array.astype(object)
    same_kind = array.dtype.kind == target.kind or {array.dtype.kind, target.kind} <= {"i", "u"}
    if not same_kind:
        raise _wrong_dtype(array, spec)
    with np.errstate(over="ignore"):
        cast = array.astype(target)
    if target.kind in "iu" and not np.array_equal(cast, array):
        raise _wrong_dtype(array, spec)
    if target.kind == "f" and not np.isfinite(cast).all():
        raise Unprocessable(
            "dataset_not_finite",
            f"The items for input “{spec.name}” hold NaN or infinite values.",
            f"{int((~np.isfinite(cast)).sum()):,} of {cast.size:,} numbers are not finite as {spec.dtype}.",
        )
    return cast


def _wrong_dtype(array: Array, spec: TensorSpec) -> Unprocessable:
    return Unprocessable(
        "dataset_dtype",
        f"The items for input “{spec.name}” have the wrong type.",
        f"They are {array.dtype}; the model takes {spec.dtype}, and these values do not fit it unchanged.",
    )


def _listed(names: set[str] | Sequence[str]) -> str:
    return ", ".join(f"“{name[:60]}”" for name in sorted(names)[:10]) or "nothing"
