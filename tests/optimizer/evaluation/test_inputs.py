"""Made-up inputs respect the signature and the graph, and are the same for the same seed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from controlplane.core.errors import Unprocessable
from optimizer.evaluation.ranges import Range, integer_ranges
from optimizer.evaluation.synthetic import RandomItems, random_items
from optimizer.workbench.session import open_session
from optimizer.workbench.signature import NUMPY_DTYPES, Signature
from tests.optimizer import onnx_models


def test_tokens_stay_inside_a_one_hot_encoding_written_as_a_comparison() -> None:
    assert integer_ranges(onnx_models.magika_path()) == {"bytes": Range(low=0, high=256)}


def test_ids_stay_inside_the_vocabulary_and_nothing_is_invented_for_a_mask(tmp_path: Path) -> None:
    onnx_models.embedding(tmp_path / "embedding.onnx", vocabulary=50)
    assert integer_ranges(tmp_path / "embedding.onnx") == {"ids": Range(low=0, high=49)}


@pytest.mark.parametrize(
    ("nodes", "constants", "expected"),
    [
        (
            [("OneHot", ["x", "depth", "values"])],
            {"depth": np.array(9), "values": np.array([0.0, 1.0])},
            (0, 8),
        ),
        ([("Gather", ["table", "x"])], {"table": np.zeros((5, 2), np.float32)}, (0, 4)),
        # Used as the data of a Gather, and compared with no enumeration: says nothing.
        ([("Gather", ["x", "index"])], {"index": np.array([0])}, None),
        ([("Equal", ["x", "few"])], {"few": np.array([3, 9])}, None),
        ([("Equal", ["few", "x"])], {"few": np.array([[2, 3, 4]])}, (2, 4)),
        ([("Shape", ["x"])], {}, None),
    ],
)
def test_each_use_of_an_integer_says_what_it_allows(
    nodes: list[Any], constants: dict[str, Any], expected: tuple[int, int] | None, tmp_path: Path
) -> None:
    ((operator, inputs),) = nodes
    import onnx
    from onnx import numpy_helper

    graph = helper.make_graph(
        [helper.make_node(operator, inputs, ["y"])],
        "one-use",
        [helper.make_tensor_value_info("x", onnx.TensorProto.INT64, ["n"])],
        [],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph), str(tmp_path / "one.onnx"))
    found = integer_ranges(tmp_path / "one.onnx").get("x")
    assert (found and (found.low, found.high)) == expected


def test_the_narrowest_of_several_uses_counts(tmp_path: Path) -> None:
    made = onnx_models.signature([("x", "INT64", ["n"])], [("y", "FP32", ["n", 2])])
    path = onnx_models.save(
        tmp_path / "two.onnx",
        nodes=[
            helper.make_node("Gather", ["big", "x"], ["a"]),
            helper.make_node("Gather", ["small", "x"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["y"]),
        ],
        constants={"big": np.zeros((90, 2), np.float32), "small": np.zeros((7, 2), np.float32)},
        signature=made,
    )
    assert integer_ranges(path) == {"x": Range(low=0, high=6)}


def test_the_open_sizes_of_a_model_are_found_by_trying(tmp_path: Path) -> None:
    made = onnx_models.embedding(tmp_path / "embedding.onnx")
    session = open_session(tmp_path / "embedding.onnx")
    tried: list[int] = []

    def runs(feed: dict[str, Any]) -> Any:
        tried.append(feed["ids"].shape[1])
        if feed["ids"].shape[1] > 40:
            raise RuntimeError("too long")
        return session.run(None, feed)

    found = random_items(
        Signature.from_json(made),
        ranges=integer_ranges(tmp_path / "embedding.onnx"),
        runs=runs,
        seed=1,
        count=9,
    )
    assert tried == [64, 128, 224, 32]
    assert len(found) == 9
    assert found.feed([0])["mask"].shape == (1, 32)


def test_a_model_that_refuses_every_size_is_told_with_its_own_words() -> None:
    made = Signature.from_json(onnx_models.signature([("x", "FP32", ["n", "m"])], [("y", "FP32", ["n"])]))

    def runs(feed: dict[str, Any]) -> Any:
        raise RuntimeError("Gemm wants 7\ntrace")

    with pytest.raises(Unprocessable, match="Gemm wants 7 Give an evaluation set") as caught:
        random_items(made, ranges={}, runs=runs, seed=1, count=9)
    assert caught.value.code == "cannot_make_inputs"


def test_text_is_not_made_up() -> None:
    made = Signature.from_json({"inputs": [{"name": "t", "dtype": "BYTES", "shape": ["n"]}], "outputs": []})
    with pytest.raises(Unprocessable, match="random text means nothing"):
        random_items(made, ranges={}, runs=lambda feed: None, seed=1, count=1)


dtypes = st.sampled_from(sorted(NUMPY_DTYPES.keys() - {"BYTES"}))
tensors = st.lists(
    st.tuples(dtypes, st.lists(st.integers(1, 4) | st.sampled_from(["a", "b"]), max_size=3)),
    min_size=1,
    max_size=3,
)


@given(tensors, st.booleans(), st.integers(0, 2**31), st.integers(0, 2**20))
def test_every_item_has_the_declared_types_and_shapes_and_depends_on_nothing_but_its_number(
    rows: list[tuple[str, list[Any]]], batched: bool, seed: int, index: int
) -> None:
    inputs = [
        {"name": f"i{number}", "dtype": dtype, "shape": (["n", *shape] if batched else shape)}
        for number, (dtype, shape) in enumerate(rows)
    ]
    made = Signature.from_json({"inputs": inputs, "outputs": [], "batch_axis": 0 if batched else None})
    found = RandomItems(signature=made, sizes={"a": 3, "b": 5}, ranges={}, seed=seed, count=2**30)
    feed = found.feed([index])
    for spec, (dtype, shape) in zip(made.inputs, rows, strict=True):
        sizes = tuple({"a": 3, "b": 5}.get(size, size) for size in shape)
        assert feed[spec.name].dtype == NUMPY_DTYPES[dtype]
        assert feed[spec.name].shape == ((1, *sizes) if batched else sizes)
    if batched:
        later = found.feed([index + 1, index])
        assert all(np.array_equal(later[name][1], feed[name][0]) for name in feed)


@given(st.integers(-50, 50), st.integers(0, 40))
def test_integers_stay_inside_their_range_and_reach_its_ends(low: int, width: int) -> None:
    made = Signature.from_json(onnx_models.signature([("x", "INT64", ["n", 2000])], [("y", "FP32", ["n"])]))
    limits = Range(low=low, high=low + width)
    drawn = RandomItems(signature=made, sizes={}, ranges={"x": limits}, seed=0, count=1).feed([0])["x"]
    assert (drawn.min(), drawn.max()) == (low, low + width)
