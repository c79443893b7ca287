"""Parquet and CSV become the npz that was meant, or are refused with the column and the row."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake import dataset_child, tables
from tests.controlplane.registry.intake.models import npz, write
from tests.controlplane.registry.intake.test_datasets import SIGNATURE, TEXTS, X

TWO: dict[str, Any] = SIGNATURE | {
    "inputs": [
        {"name": "image", "dtype": "FP32", "shape": ["n", 2, 2]},
        {"name": "age", "dtype": "INT64", "shape": ["n"]},
    ]
}
ROWS = [{"x": list(map(float, row)), "label": index % 3} for index, row in enumerate(X)]
FIXED_LIST = pa.list_(pa.float32(), 4)


def table(rows: Any, schema: Any = None, **options: Any) -> bytes:
    file = io.BytesIO()
    made = pa.Table.from_pylist(rows, schema=schema) if isinstance(rows, list) else rows
    parquet.write_table(made, file, **options)
    return file.getvalue()


def csv_of(rows: list[dict[str, Any]]) -> bytes:
    lines = [",".join(rows[0])]
    lines += [
        ",".join(f'"{value}"' if isinstance(value, list) else str(value) for value in row.values())
        for row in rows
    ]
    return "\n".join(lines).encode()


def arrays(body: bytes) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(io.BytesIO(body)) as archive:
        return dict(archive)


@pytest.mark.parametrize(
    "body",
    [
        table(ROWS),
        table(ROWS, pa.schema([("x", FIXED_LIST), ("label", pa.int8())]), compression="zstd"),
        table(ROWS, row_group_size=3),
        csv_of(ROWS),
        b"\xef\xbb\xbf" + csv_of(ROWS).replace(b"\n", b"\r\n") + b"\r\n",
    ],
    ids=["lists of doubles", "fixed lists", "row groups", "csv", "csv of a spreadsheet"],
)
def test_a_table_becomes_the_npz_that_it_means(look_at_dataset, kept, body):
    found = look_at_dataset(body, SIGNATURE)
    assert (found.items, found.labels, found.repacked) == (
        10,
        {"kind": "classes", "classes": 3, "max": 2},
        True,
    )
    made = arrays(kept[0])
    assert (made["x"].dtype, made["labels"].dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(made["x"], X)
    np.testing.assert_array_equal(made["labels"], np.arange(10) % 3)
    look_at_dataset(body, SIGNATURE)
    assert kept[0] == kept[1], "the same table has another digest"


def test_an_npz_stays_the_file_that_was_sent(look_at_dataset, kept):
    body = npz(x=X)
    assert not look_at_dataset(body, SIGNATURE).repacked
    assert kept == [body]


@pytest.mark.parametrize("image", [[[1, 2], [3, 4]], [1, 2, 3, 4]], ids=["nested", "flat"])
@pytest.mark.parametrize("write", [table, csv_of])
def test_a_list_may_be_nested_or_flat_and_there_may_be_many_inputs(look_at_dataset, kept, write, image):
    found = look_at_dataset(write([{"age": 7, "image": image}] * 1500), TWO)
    assert (found.items, found.has_labels) == (1500, False)
    made = arrays(kept[0])
    assert made["image"].shape == (1500, 2, 2)
    assert made["image"][-1].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("body", [table([{"x": "a"}, {"x": "bé"}]), "x\na\nbé".encode()])
def test_texts_are_read(look_at_dataset, kept, body):
    assert look_at_dataset(body, TEXTS).items == 2
    assert arrays(kept[0])["x"].tolist() == ["a", "bé"]


def test_no_cell_and_no_name_is_an_address_to_follow(look_at_dataset, kept):
    rows = [{"x": "file:///etc/passwd"}, {"x": "https://example.com/x.parquet"}]
    look_at_dataset(table(rows), TEXTS)
    assert arrays(kept[0])["x"].tolist() == [row["x"] for row in rows]


def changed(row: int, **values: Any) -> list[dict[str, Any]]:
    rows = [dict(one) for one in ROWS]
    rows[row - 1] |= values
    return rows


BAD = {
    "short list": (table(changed(7, x=[1.0])), "bad_column", "“x”, row 7: the list has 1"),
    "short list, csv": (csv_of(changed(7, x=[1.0])), "bad_column", "“x”, row 7"),
    "all short": (table([{"x": [1.0, 2.0]}]), "bad_column", "the model takes a list of the shape [4]"),
    "a number": (csv_of([{"x": 1.0}]), "bad_column", "row 1: holds one value, the model takes a list"),
    "null": (table(changed(4, x=None)), "bad_column", "row 4: there is no value"),
    "null inside": (table(changed(4, x=[1.0, None, 2.0, 3.0])), "bad_column", "row 4: there is no value"),
    "empty cell": (b"x,label\n,1\n", "bad_column", "row 1: there is no value"),
    "text": (csv_of(changed(2, x="four")), "bad_column", "“x”, row 2: “four” is no number"),
    "text column": (table([{"x": "a"}]), "bad_column", "holds"),
    "NaN": (table(changed(9, x=[0.0, float("nan"), 0.0, 0.0])), "bad_column", "row 9: nan is no FP32"),
    "NaN, csv": (csv_of([{"x": [float("nan")] * 4}]), "bad_column", "row 1"),
    "too large": (csv_of(changed(3, x=[0, 1e39, 0, 0])), "bad_column", "row 3: 1e+39 is no FP32"),
    "missing": (table([{"label": 1}]), "bad_column", "lacks “x”"),
    "unknown": (csv_of([{"x": 1, "y": 2}]), "bad_column", "has “y”"),
    "twice": (b"x,x\n1,2\n", "bad_column", "“x”: there are two of this name"),
    "both labels": (b"x,label,labels\n1,2,3\n", "bad_column", "both"),
    "cells": (
        b"x,label\n[1;2;3;4],1\n1\n",
        "bad_column",
        "row 2: the row has 1 cells, the first line names 2",
    ),
    "quote": (b'x,label\n"[1,2,3,4]"x,1\n', "bad_table", "after row 0"),
    "no rows": (b"x,label\n", "bad_table", "no rows"),
    "no rows, parquet": (table([], pa.schema([("x", FIXED_LIST)])), "bad_table", "no rows"),
    "latin-1": (b"x,label\n\xff,1\n", "bad_table", "not UTF-8"),
    "dates": (table([{"x": __import__("datetime").date(2026, 1, 1)}]), "bad_column", "date32"),
    "structs": (table([{"x": {"a": 1}}]), "bad_column", "struct"),
    "magic only": (b"PAR1", "bad_table", "Parquet"),
    "cut off": (table(ROWS)[:-20], "bad_table", "Parquet"),
    "middle lost": (table(ROWS)[:40] + table(ROWS)[200:], "bad_table", "orrupt"),
    "prose": (b"Dear model, please be accurate.\n", "not_npz", "names the columns: “x”"),
    "html": (b"<html></html>", "not_npz", "names the columns"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_does_not_fit_is_refused_by_column_and_row(tmp_path, name):
    """By what the sandbox runs, here without it: these bytes are ours."""
    body, code, said = BAD[name]
    spec = {"path": str(write(tmp_path, body)), "scratch": str(tmp_path), "total_bytes": 2**30}
    with pytest.raises(Unprocessable) as error:
        dataset_child.inspect(spec | {"signature": SIGNATURE}, lambda message: None)
    assert (error.value.code, said in error.value.detail) == (code, True), f"{error.value.detail}"
    assert error.value.detail.isprintable()


def test_a_small_file_of_many_rows_is_refused_while_it_is_read(look_at_dataset, monkeypatch):
    """32 MB of zeros in less than 100 kB: each piece is small, and they are counted."""
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(4 * 1_000_000, np.float32)), 4)
    made = pa.table({"x": pa.chunked_array([column] * 2)})
    body = table(made, compression="zstd", row_group_size=1_000_000)
    assert len(body) < 100_000
    monkeypatch.setattr("controlplane.registry.intake.inspection.MAX_DATASET_BYTES", 2**20)
    with pytest.raises(Unprocessable) as error:
        look_at_dataset(body, SIGNATURE)
    assert (error.value.code, "1,048,576 bytes" in error.value.detail) == ("too_large_unpacked", True)


def test_numbers_keep_their_value_or_are_refused():
    column = tables.Column(name="n", dtype="UINT8", wanted=(), file=io.BytesIO())
    assert column.add(np.array([0, 255.0])) == 2
    for wrong in (-1, 256, 0.5):
        with pytest.raises(Unprocessable, match="cannot be used") as error:
            column.add(np.array([1, wrong]))
        assert "row 4" in error.value.detail
