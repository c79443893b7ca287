"""The rows of a table, Parquet or CSV, in pieces: each column an array whose first axis is the rows.

What is wrong is refused with its column and row. No cell and no name is an address that anything follows.
"""

import csv
import io
import math
import os
from collections.abc import Generator, Mapping, Sequence
from itertools import batched
from typing import Any, BinaryIO

import numpy as np
import orjson

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.tensors import quoted

LABEL_NAMES = ("labels", "label")
ROWS_AT_ONCE = 1024
MAX_COLUMNS = 1000
MAX_CELL_BYTES = 16 * 1024**2
type Values = np.ndarray[Any, Any]


def bad_column(name: str, problem: str, *, row: int | None = None) -> Unprocessable:
    """`row` counts from 1, without the line of names."""
    where = f"The column {quoted(name)}" + (f", row {row:,}" if row is not None else "")
    return Unprocessable("bad_column", "A column of the data set cannot be used.", f"{where}: {problem}.")


def unreadable(kind: str, why: str) -> Unprocessable:
    return Unprocessable("bad_table", f"The {kind} file cannot be read.", why)


def parquet_rows(file: BinaryIO) -> Generator[dict[str, Values]]:
    """Of the open file only: neither its metadata nor a cell is an address that anything follows."""
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file, thrift_string_size_limit=2**26, thrift_container_size_limit=2**20)
        if len(table.schema_arrow) > MAX_COLUMNS:
            raise unreadable("Parquet", f"It has more than {MAX_COLUMNS:,} columns.")
        row = 0
        for batch in table.iter_batches(batch_size=ROWS_AT_ONCE, use_threads=False):
            names = batch.schema.names
            _each_once(names)
            dense = [
                _dense(column, name=name, row=row) for name, column in zip(names, batch.columns, strict=True)
            ]
            yield dict(zip(names, dense, strict=True))
            row += len(batch)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        first = str(error).partition("\n")[0].encode("unicode_escape").decode()[:200]
        raise unreadable("Parquet", f"{first or 'It is damaged'}.") from error


def _dense(column: Any, *, name: str, row: int) -> Values:
    """A column of one shape as an array. `row`: how many rows came before."""
    import pyarrow
    from pyarrow import compute

    rows, types = len(column), pyarrow.types
    sizes: list[int] = []
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    while True:
        per_row = max(1, math.prod(sizes))
        if column.null_count:
            at = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise bad_column(name, "there is no value", row=row + at // per_row + 1)
        if not (
            types.is_list(column.type)
            or types.is_large_list(column.type)
            or types.is_fixed_size_list(column.type)
        ):
            break
        lengths = compute.list_value_length(column).to_numpy(zero_copy_only=False)
        uneven = lengths != lengths[:1]
        if uneven.any():
            at = int(np.argmax(uneven))
            problem = f"the list has {lengths[at]:,} values, the ones before it have {lengths[0]:,}"
            raise bad_column(name, problem, row=row + at // per_row + 1)
        sizes.append(int(lengths[0]) if len(lengths) else 0)
        column = column.flatten()
    kind = column.type
    if not (
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
    ):
        raise bad_column(name, f"has the type {kind}; numbers, texts and lists of numbers are read")
    values: Values = column.to_numpy(zero_copy_only=False)
    return values.reshape(rows, *sizes)


def csv_rows(file: BinaryIO, signature: Mapping[str, Any]) -> Generator[dict[str, Values]]:
    """UTF-8, separated by commas, the first line with the names."""
    _refuse_what_is_no_table(file.readline(MAX_CELL_BYTES), signature)
    file.seek(0)
    csv.field_size_limit(MAX_CELL_BYTES)
    texts = {port["name"] for port in signature["inputs"] if port["dtype"] == "BYTES"}
    row = 0
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        lines = csv.reader(text, strict=True)
        try:
            names = [name.strip() for name in next(lines, [])][: MAX_COLUMNS + 1]
            _each_once(names)
            for cells in batched(filter(None, lines), ROWS_AT_ONCE):
                yield _piece(names, cells, texts=texts, row=row)
                row += len(cells)
        except UnicodeDecodeError as error:
            raise unreadable("CSV", f"It is not UTF-8 after row {row:,}.") from error
        except csv.Error as error:
            raise unreadable("CSV", f"{str(error).capitalize()}, after row {row:,}.") from error


def _each_once(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise bad_column(name, "there are two of this name")


def _refuse_what_is_no_table(first: bytes, signature: Mapping[str, Any]) -> None:
    """By its first line, which names an input: what is something else altogether should not be told of its rows."""
    line = first.decode(errors="replace").lstrip("\ufeff").strip()
    names = {cell.strip().strip('"') for cell in line.split(",")}
    if not {port["name"] for port in signature["inputs"]} & names and not names & set(LABEL_NAMES):
        raise Unprocessable(
            "not_npz",
            "This file is no data set.",
            "Send an npz archive (numpy.savez), a Parquet file, or CSV whose first line names the columns: "
            f"{', '.join(quoted(port['name']) for port in signature['inputs'][:5])} and, if there is one, “label”.",
        )


def _piece(names: list[str], cells: Sequence[list[str]], *, texts: set[str], row: int) -> dict[str, Values]:
    for at, line in enumerate(cells, start=row + 1):
        if len(line) != len(names):
            problem = f"the row has {len(line):,} cells, the first line names {len(names):,}"
            raise bad_column(names[0], problem, row=at)
    columns = zip(names, zip(*cells, strict=True), strict=True)
    return {
        name: np.array(column, dtype=object) if name in texts else _parsed(column, name=name, row=row)
        for name, column in columns
    }


def _parsed(column: Sequence[str], *, name: str, row: int) -> Values:
    """Numbers and lists of them, all of one shape; labels may be texts."""
    values = []
    for at, text in enumerate(column, start=row + 1):
        try:
            values.append(orjson.loads(text) if text[:1] not in '"' or name not in LABEL_NAMES else text)
        except ValueError:
            if name in LABEL_NAMES and text:
                return np.array(column, dtype=object)
            problem = f"{quoted(text[:40])} is no number and no list" if text else "there is no value"
            raise bad_column(name, problem, row=at) from None
    try:
        made = np.array(values)
    except ValueError:
        made = np.array(None)
    if made.dtype.kind in "biuf" and made.ndim:
        return made
    shapes = [_shape(value) for value in values]
    for at, shape in enumerate(shapes):
        if shape is None or shape != shapes[0]:
            problem = (
                f"{quoted(column[at][:40])} is no number, and no list of numbers as long as those before it"
            )
            raise bad_column(name, problem, row=row + at + 1)
    raise bad_column(name, "numbers and lists of numbers are read", row=row + 1)


def _shape(value: Any) -> tuple[int, ...] | None:
    """None for what is neither a number nor a list of one shape."""
    try:
        made = np.array(value)
    except ValueError:
        return None
    return made.shape if made.dtype.kind in "biuf" else None
