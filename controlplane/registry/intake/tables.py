"""Data sets as tables, Parquet and CSV, made into the npz that everything downstream reads. Runs in the sandbox.

One column per input, named as in the signature, and `label` or `labels`: numbers, texts, or lists for what has a
shape (nested, or flat in C order). In CSV a list is JSON in a cell. Rows are read in pieces and counted while they
come: what a file says of its own size is not believed. Refused: Arrow's own CSV reader, which knows no lists and no
row numbers; and guessing separators and types, which answers with other numbers than those that were sent.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZipFile, ZipInfo

import numpy as np

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.table_rows import (
    LABEL_NAMES,
    Values,
    bad_column,
    csv_rows,
    parquet_rows,
    unreadable,
)
from controlplane.registry.intake.tensors import quoted

PARQUET = b"PAR1"
MAX_ROWS = 10_000_000
MAX_TEXT = 9_999
"""Characters: what an npz's header of four digits can say."""
_NUMPY = {
    "BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8,
    "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "FP16": np.float16, "FP32": np.float32,
    "FP64": np.float64,
}  # fmt: skip


@dataclass(kw_only=True)
class Column:
    """Takes pieces of rows and keeps them as the model's type in a file of its own. `wanted` is the shape of one item,
    with a name where any size fits; None for labels, whose shape and type are those of the first piece."""

    name: str
    dtype: str | None
    wanted: tuple[int | str, ...] | None
    file: BinaryIO
    rows: int = 0
    shape: tuple[int, ...] | None = None
    texts: list[str] = field(default_factory=list)
    longest: int = 1

    def add(self, values: Values) -> int:
        """`values`: one row per item. Returns how many bytes it will take."""
        if self.dtype is None:
            self.dtype = _label_type(values)
        if self.dtype == "BYTES":
            return self._add_texts(values)
        fitted = self._cast(self._fit(values))
        self.file.write(np.ascontiguousarray(fitted).tobytes())
        self.rows += len(fitted)
        return fitted.nbytes

    def _fit(self, values: Values) -> Values:
        given = values.shape[1:]
        if self.wanted is not None and not _fits(given, self.wanted):
            whole = [size for size in self.wanted if isinstance(size, int)]
            flat = len(whole) == len(self.wanted) and math.prod(given) == math.prod(whole) and len(given) <= 1
            if not flat:
                raise bad_column(self.name, self._said(given), row=self.rows + 1)
            values = values.reshape(len(values), *whole)
        self.shape = self.shape if self.shape is not None else values.shape[1:]
        if values.shape[1:] != self.shape:
            problem = f"has the shape {list(values.shape[1:])}, the rows before it have {list(self.shape)}"
            raise bad_column(self.name, problem, row=self.rows + 1)
        return values

    def _said(self, given: Sequence[int]) -> str:
        wanted = list(self.wanted or ())
        takes = (
            f"the model takes a list of the shape [{', '.join(map(str, wanted))}]"
            if wanted
            else "the model takes one number"
        )
        return f"holds {f'a list of the shape {list(given)}' if given else 'one value'}, {takes}"

    def _cast(self, values: Values) -> Values:
        """The same numbers in the model's type, or a refusal that names the row."""
        target = np.dtype(_NUMPY[str(self.dtype)])
        if values.dtype.kind not in "biuf":
            raise bad_column(self.name, f"holds text, the model takes {self.dtype}", row=self.rows + 1)
        with np.errstate(over="ignore", invalid="ignore"):
            cast = values.astype(target)
            same = np.isfinite(cast) if target.kind == "f" else cast == values
        if target.kind == "b":
            same = (values == 0) | (values == 1)
        wrong = ~np.asarray(same).reshape(len(values), -1).all(axis=1)
        if wrong.any():
            at = int(wrong.argmax())
            first = values[at].reshape(-1)[~np.asarray(same)[at].reshape(-1)][0]
            raise bad_column(self.name, f"{first} is no {self.dtype}", row=self.rows + at + 1)
        return cast

    def _add_texts(self, values: Values) -> int:
        if values.dtype.kind not in "UO" or values.ndim != 1:
            raise bad_column(self.name, "one text per row is read here", row=self.rows + 1)
        self.texts.extend(values.tolist())
        for at, text in enumerate(self.texts[self.rows :], start=self.rows + 1):
            if len(text) > MAX_TEXT:
                raise bad_column(
                    self.name, f"the text has {len(text):,} characters; {MAX_TEXT:,} are read", row=at
                )
            self.longest = max(self.longest, len(text))
        self.rows, self.shape = len(self.texts), ()
        return 4 * self.longest * len(self.texts)

    def write(self, archive: ZipFile, name: str) -> None:
        """Always the same bytes for the same rows: a set is known by its digest."""
        texts = np.array(self.texts, dtype=f"<U{self.longest}") if self.dtype == "BYTES" else None
        dtype = np.dtype(_NUMPY[str(self.dtype)]) if texts is None else texts.dtype
        header = {"descr": dtype.str, "fortran_order": False, "shape": (self.rows, *(self.shape or ()))}
        with archive.open(ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            if texts is not None:
                member.write(texts.tobytes())
                return
            self.file.seek(0)
            shutil.copyfileobj(self.file, member)


def to_npz(path: Path, out: Path, *, signature: Mapping[str, Any], total_bytes: int) -> None:
    """Raises Unprocessable: `bad_table`, `bad_column`, `too_large_unpacked`."""
    with ExitStack() as own, path.open("rb") as file, ZipFile(out, "w") as archive:
        kind = "Parquet" if file.read(4) == PARQUET else "CSV"
        file.seek(0)
        pieces = parquet_rows(file) if kind == "Parquet" else csv_rows(file, signature)
        columns: dict[str, Column] = {}

        def place(name: str) -> BinaryIO:
            return own.enter_context((out.parent / name).open("w+b"))

        taken: dict[str, int] = {}
        for piece in own.enter_context(closing(pieces)):
            if not columns:
                columns = _columns(list(piece), signature, place=place)
            for name, column in columns.items():
                size = column.add(piece[name])
                taken[name] = size if column.dtype == "BYTES" else taken.get(name, 0) + size
            _bound(columns, taken, total_bytes)
        if not any(column.rows for column in columns.values()):
            raise unreadable(
                kind,
                "It has no rows. The first line names the columns." if kind == "CSV" else "It has no rows.",
            )
        for name, column in columns.items():
            column.write(archive, "labels" if column.wanted is None else name)


def _bound(columns: Mapping[str, Column], taken: Mapping[str, int], total_bytes: int) -> None:
    rows = max(column.rows for column in columns.values())
    if sum(taken.values()) > total_bytes or rows > MAX_ROWS:
        raise Unprocessable(
            "too_large_unpacked",
            "The data set is too large when unpacked.",
            f"At most {total_bytes:,} bytes and {MAX_ROWS:,} rows are read. Send a sample of it.",
        )


def _columns(
    names: list[str], signature: Mapping[str, Any], *, place: Callable[[str], BinaryIO]
) -> dict[str, Column]:
    """One for each column that is used. Raises Unprocessable where they are not the model's inputs."""
    ports = {port["name"]: port for port in signature["inputs"]}
    labels = [name for name in LABEL_NAMES if name in names and name not in ports]
    missing, unknown = sorted(ports.keys() - set(names)), sorted(set(names) - ports.keys() - set(labels))
    if missing or unknown or len(labels) > 1:
        said = [
            f"{word} {', '.join(quoted(name) for name in some[:5])}"
            for word, some in (("lacks", missing), ("has", unknown))
            if some
        ] or ["has both “label” and “labels”"]
        takes = ", ".join(quoted(name) for name in list(ports)[:5])
        raise Unprocessable(
            "bad_column",
            "The columns are not the model's inputs.",
            f"The file {' and '.join(said)}; it must have {takes}, and may have “label”.",
        )
    batched = signature["batch_axis"] == 0

    found = {
        name: Column(
            name=name,
            dtype=port["dtype"],
            wanted=tuple(port["shape"][1:] if batched else port["shape"]),
            file=place(f"column-{index}"),
        )
        for index, (name, port) in enumerate(ports.items())
    }
    return found | {name: Column(name=name, dtype=None, wanted=None, file=place("labels")) for name in labels}


def _fits(given: Sequence[int], wanted: Sequence[int | str]) -> bool:
    return len(given) == len(wanted) and all(
        isinstance(want, str) or want == size for want, size in zip(wanted, given, strict=True)
    )


def _label_type(values: Values) -> str:
    match values.dtype.kind:
        case "U" | "O":
            return "BYTES"
        case "f":
            return "FP32"
        case _:
            return "INT64"
