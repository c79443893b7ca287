"""A set from a user is read strictly, without running anything, and refused in words (BADINPUT D11)."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.errors import Unprocessable
from optimizer.workbench import items
from optimizer.workbench.items import batches, read_npz
from optimizer.workbench.signature import Signature
from tests.optimizer import onnx_models

TOKENS = Signature.from_json(
    onnx_models.signature([("x", "INT32", ["batch", 4])], [("y", "FP32", ["batch", 2])])
)
FLOATS = Signature.from_json(
    onnx_models.signature([("x", "FP32", ["batch", 4])], [("y", "FP32", ["batch", 2])])
)


def written(path: Path, **arrays: Any) -> Path:
    np.savez(path / "set.npz", **arrays)
    return path / "set.npz"


def refused(path: Path, signature: Signature = FLOATS) -> Unprocessable:
    with pytest.raises(Unprocessable) as caught:
        read_npz(path, signature)
    return caught.value


def test_items_and_labels_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, x=np.arange(12, dtype=np.float32).reshape(3, 4), labels=np.array([0, 1, 1]))
    found = read_npz(path, FLOATS)
    assert len(found) == 3
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 1]
    assert found.feed([2, 0])["x"].tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]


def test_numbers_are_brought_to_the_models_type_when_they_stay_the_same_numbers(tmp_path: Path) -> None:
    found = read_npz(written(tmp_path, x=np.array([[0, 1, 2, 300]], dtype=np.uint16)), TOKENS)
    assert found.feed([0])["x"].dtype == np.int32


@pytest.mark.parametrize(
    ("array", "signature"),
    [
        (np.array([[0, 1, 2, 2**40]]), TOKENS),
        (np.array([[0.0, 1.5, 2, 3]]), TOKENS),
        (np.array([[0, 1, 2, 3]]), FLOATS),
        (np.array([["a", "b", "c", "d"]]), FLOATS),
        (np.array([[1 + 2j] * 4]), FLOATS),
    ],
)
def test_numbers_that_would_become_others_are_refused(
    array: Any, signature: Signature, tmp_path: Path
) -> None:
    assert refused(written(tmp_path, x=array), signature).code == "dataset_dtype"


@pytest.mark.parametrize("shape", [(3, 5), (3,), (3, 4, 1), ()])
def test_a_wrong_shape_is_refused_with_the_right_one(shape: tuple[int, ...], tmp_path: Path) -> None:
    error = refused(written(tmp_path, x=np.zeros(shape, dtype=np.float32)))
    assert error.code == "dataset_shape"
    assert "takes [4] for each" in error.detail


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    assert (
        refused(written(tmp_path, x=np.array([[1, 2, 3, np.inf]], dtype=np.float32))).code
        == "dataset_not_finite"
    )
    assert refused(written(tmp_path, x=np.array([[1, 2, 3, 1e300]]))).code == "dataset_not_finite"


@pytest.mark.parametrize(
    ("arrays", "code", "says"),
    [
        ({"z": np.zeros((3, 4), np.float32)}, "dataset_inputs", "missing: “x”"),
        ({"x": np.zeros((0, 4), np.float32)}, "dataset_empty", ""),
        ({"x": np.zeros((3, 4), np.float32), "labels": np.zeros(2, int)}, "dataset_shape", "'labels': 2"),
        ({"x": np.zeros((3, 4), np.float32), "labels": np.zeros(3, bool)}, "dataset_labels", "bool"),
        (
            {"x": np.zeros((3, 4), np.float32), "labels": np.zeros((3, 2, 2), int)},
            "dataset_labels",
            "[3, 2, 2]",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    arrays: dict[str, Any], code: str, says: str, tmp_path: Path
) -> None:
    error = refused(written(tmp_path, **arrays))
    assert error.code == code
    assert says in error.detail


class Payload:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


def test_a_pickle_inside_a_set_is_refused_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, x=np.array([Payload()] * 4, dtype=object))
    error = refused(path)
    assert error.code == "dataset_unreadable"
    assert "pickled objects are not" in error.detail
    assert not (tmp_path / "ran").exists()


def test_a_bomb_is_refused_by_its_declared_size_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "MAX_UNPACKED_BYTES", 1_000_000)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(2_000_000))
    assert (tmp_path / "bomb.npz").stat().st_size < 5_000
    assert refused(tmp_path / "bomb.npz").code == "dataset_too_large"


def test_a_header_that_declares_more_than_there_is_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 4)}
    )
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(64))
    assert refused(tmp_path / "short.npz").code == "dataset_unreadable"


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_and_nothing_else(content: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        file.write(content)
        file.flush()
        assert refused(Path(file.name)).code in {"dataset_unreadable", "dataset_inputs"}


def test_a_model_with_a_batch_of_one_takes_items_one_at_a_time(tmp_path: Path) -> None:
    made = onnx_models.signature([("x", "FP32", [1, 4])], [("y", "FP32", [1, 2])])
    found = read_npz(
        written(tmp_path, x=np.arange(8, dtype=np.float32).reshape(2, 4)), Signature.from_json(made)
    )
    assert found.feed([1])["x"].tolist() == [[4, 5, 6, 7]]
    with pytest.raises(ValueError, match="one item at a time"):
        found.feed([0, 1])


def test_a_model_without_any_batch_axis_gets_each_item_whole(tmp_path: Path) -> None:
    made = onnx_models.signature([("x", "FP32", [2, 4])], [("y", "FP32", [2, 4])])
    found = read_npz(written(tmp_path, x=np.zeros((5, 2, 4), np.float32)), Signature.from_json(made))
    assert len(found) == 5
    assert found.feed([4])["x"].shape == (2, 4)


def test_an_item_of_a_single_number_is_an_array(tmp_path: Path) -> None:
    """Such as the sampling rate beside a sound."""
    signature = Signature.from_json(
        onnx_models.signature([("x", "FP32", [2, 4]), ("rate", "INT64", [])], [("y", "FP32", [2, 1])])
        | {"batch_axis": None}
    )
    path = written(tmp_path, x=np.zeros((3, 2, 4), np.float32), rate=np.full(3, 16_000))
    rate = read_npz(path, signature).feed([1])["rate"]
    assert isinstance(rate, np.ndarray)
    assert (rate.shape, rate.item()) == ((), 16_000)


@given(st.integers(0, 500), st.integers(1, 40))
def test_batches_cover_every_item_once(count: int, size: int) -> None:
    assert [index for batch in batches(count, size) for index in batch] == list(range(count))
