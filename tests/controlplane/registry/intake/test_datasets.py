"""Data sets: what fits a signature is counted, everything else is refused by name."""

import numpy as np
import pytest

from controlplane.core.errors import Unprocessable
from tests.controlplane.registry.intake.models import Payload, npy, npz, zipped

SIGNATURE = {
    "inputs": [{"name": "x", "dtype": "FP32", "shape": ["batch", 4]}],
    "outputs": [{"name": "y", "dtype": "FP32", "shape": ["batch", 3]}],
    "batch_axis": 0,
}
FIXED = SIGNATURE | {"inputs": [{"name": "x", "dtype": "FP32", "shape": [1, 4]}], "batch_axis": None}
TEXTS = SIGNATURE | {"inputs": [{"name": "x", "dtype": "BYTES", "shape": ["n"]}]}
X = np.arange(40, dtype=np.float32).reshape(10, 4)


def test_arrays_are_called_whatever_the_inputs_are(look_at_dataset):
    """TensorFlow's names have a slash and a colon; nothing is unpacked under them."""
    names = ["/model/serving_default_x:0", "X", "x"]
    inputs = [{"name": name, "dtype": "FP32", "shape": ["batch", 4]} for name in names]
    assert look_at_dataset(npz(**dict.fromkeys(names, X)), SIGNATURE | {"inputs": inputs}).items == 10


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_and_labels_are_counted(look_at_dataset, compressed):
    labels = np.array([0, 1, 2, 2, 1, 0, 0, 0, 2, 5], dtype=np.int64)
    found = look_at_dataset(npz(x=X, labels=labels, compressed=compressed), SIGNATURE)
    assert (found.items, found.has_labels, found.labels) == (
        10,
        True,
        {"kind": "classes", "classes": 4, "max": 5},
    )
    assert found.summary["arrays"] == [{"name": "x", "dtype": "FP32", "shape": [10, 4]}]


def test_a_label_that_nobody_knows_is_minus_one_where_only_learning_needs_it(look_at_dataset):
    body = npz(x=X, labels=np.array([0, 1, -1, -1, 1, 0, 0, 0, -1, 5], dtype=np.int64))
    found = look_at_dataset(body, SIGNATURE, partly_labelled=True)
    assert found.labels == {"kind": "classes", "classes": 3, "max": 5}
    with pytest.raises(Unprocessable, match="begin at 0"):
        look_at_dataset(body, SIGNATURE)


def test_labels_may_be_numbers(look_at_dataset):
    labels = np.linspace(-3, 3, 10)
    assert look_at_dataset(npz(x=X, labels=labels), SIGNATURE).labels == {"kind": "numbers"}


def test_labels_may_be_missing(look_at_dataset):
    found = look_at_dataset(npz(x=X), SIGNATURE)
    assert (found.items, found.has_labels) == (10, False)


def test_without_a_batch_axis_every_item_is_a_whole_input(look_at_dataset):
    assert look_at_dataset(npz(x=X.reshape(10, 1, 4)), FIXED).items == 10
    with pytest.raises(Unprocessable):
        look_at_dataset(npz(x=X), FIXED)


def test_order_and_byte_order_do_not_matter(look_at_dataset):
    assert look_at_dataset(npz(x=np.asfortranarray(X)), SIGNATURE).items == 10
    assert look_at_dataset(npz(x=X.astype(">f4")), SIGNATURE).items == 10


def test_texts_are_accepted(look_at_dataset):
    assert look_at_dataset(npz(x=np.array(["a", "bc"])), TEXTS).items == 2


def test_more_than_one_piece_of_values_is_read(look_at_dataset):
    assert look_at_dataset(npz(x=np.ones((400_000, 4), dtype=np.float32)), SIGNATURE).items == 400_000


def header(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


def member(header_text: str, body: bytes = b"", *, version: int = 1) -> bytes:
    return zipped({"x.npy": npy(header_text, body, version=version)})


NAN = X.copy()
NAN[3, 1] = np.nan
INF = X.copy()
INF[9, 3] = np.inf

BAD = {
    "empty file": (b"", "empty_file", "0 bytes"),
    "no npz": (X.tobytes(), "not_npz", "savez"),
    "half a magic": (b"PK and nothing else", "not_npz", "savez"),
    "npy": (npy(header("(1,)"), b"\0" * 4), "not_npz", "savez"),
    "pickle": (b"\x80\x05.", "not_npz", "savez"),
    "objects": (npz(x=np.array([{}, 1], dtype=object)), "unsafe_format", "“x”"),
    "objects that run": (npz(x=np.array([Payload()], dtype=object)), "unsafe_format", "“x”"),
    "objects in labels": (npz(x=X, labels=np.array([None] * 10)), "unsafe_format", "labels"),
    "objects in a field": (member(header("(1,)", "[('a', '|O')]"), b"\0" * 8), "bad_array", "named columns"),
    "columns": (npz(x=np.zeros(10, dtype=[("a", "f4")])), "bad_array", "named columns"),
    "dates": (npz(x=np.zeros(10, dtype="datetime64[s]")), "bad_array", "type"),
    "complex": (npz(x=X.astype(np.complex64)), "bad_array", "type"),
    "wrong type": (npz(x=X.astype(np.float64)), "bad_array", "FP64, the model takes FP32"),
    "wrong rank": (npz(x=X.reshape(10, 2, 2)), "bad_array", "(items, 4)"),
    "wrong size": (npz(x=X[:, :3]), "bad_array", "(items, 4)"),
    "no rank": (npz(x=np.float32(1)), "bad_array", "shape"),
    "NaN": (npz(x=NAN), "bad_array", "NaN"),
    "infinity": (npz(x=INF, compressed=True), "bad_array", "infinity"),
    "missing input": (npz(labels=np.zeros(10, dtype=np.int64)), "bad_array", "lacks “x”"),
    "unknown array": (npz(x=X, extra=X), "bad_array", "has “extra”"),
    "no arrays": (zipped({}), "bad_array", "lacks"),
    "no items": (npz(x=X[:0]), "bad_array", "0 items"),
    "labels too short": (npz(x=X, labels=np.zeros(9, dtype=np.int64)), "bad_array", "“labels” 9"),
    "labels of yes and no": (npz(x=X, labels=np.zeros(10, bool)), "bad_array", "BOOL"),
    "labels in a cube": (
        npz(x=X, labels=np.zeros((10, 2, 2), dtype=np.int64)),
        "bad_array",
        "one class number",
    ),
    "labels not finite": (npz(x=X, labels=np.full((10, 2), np.nan)), "bad_array", "NaN"),
    "negative labels": (npz(x=X, labels=np.full(10, -1)), "bad_array", "-1"),
    "declared too large": (member(header("(1000000000, 4)"), b"\0" * 160), "bad_array", "declares"),
    "declared overflow": (member(header("(4294967296, 4294967296, 4294967296)")), "bad_array", "declares"),
    "negative shape": (member(header("(-1, 4)")), "bad_array", "impossible shape"),
    "shape of bools": (member(header("(True, 4)"), b"\0" * 16), "bad_array", "impossible shape"),
    "100 dims": (member(header("(" + "1, " * 100 + ")"), b"\0" * 4), "bad_array", "100 dimensions"),
    "header calls": (member("__import__('os').system('true')"), "bad_array", "header"),
    "header nests": (member("[" * 5000 + "]" * 5000), "bad_array", "header"),
    "header is long": (member(" " * 20_000 + header("(1,)")), "bad_array", "too long"),
    "header without end": (zipped({"x.npy": b"\x93NUMPY\x02\0\xff\xff\xff\xff"}), "bad_array", "too long"),
    "unknown version": (member(header("(1,)"), version=9), "bad_array", "version 9"),
    "no array": (zipped({"x.npy": b"hello hello hello"}), "bad_array", "not a NumPy array"),
    "other file": (npz(x=X)[: -0 or None] and zipped({"x.npy": b"", "readme.txt": b"hi"}), "bad_array", ""),
    "in a folder": (zipped({"a/x.npy": npy(header("(1, 4)"), b"\0" * 16)}), "bad_array", "lacks “x”"),
    "escape": (zipped({"../x.npy": npy(header("(1, 4)"), b"\0" * 16)}), "bad_array", "lacks “x”"),
    "bomb": (
        zipped({"x.npy": npy(header("(2500000, 4)"), b"\0" * 40_000_000)}),
        "unsafe_archive",
        "100 times",
    ),
    "cut off": (npz(x=X)[:-30], "truncated", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_a_data_set_that_does_not_fit_is_refused_by_name(look_at_dataset, name):
    body, code, word = BAD[name]
    with pytest.raises(Unprocessable) as error:
        look_at_dataset(body, SIGNATURE)
    assert (error.value.code, word in error.value.detail) == (code, True), f"{error.value}"
    assert error.value.detail.isprintable()


def test_a_damaged_member_is_found(look_at_dataset):
    body = bytearray(npz(x=X))
    at = body.find(X[5].tobytes())
    body[at] ^= 0xFF
    with pytest.raises(Unprocessable) as error:
        look_at_dataset(bytes(body), SIGNATURE)
    assert (error.value.code, error.value.detail) == ("bad_array", "The array “x” is damaged.")
