"""The repair of a quantized model: which layers are left alone, how few, and on which items that is found."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.errors import Unprocessable
from optimizer.techniques import repair
from optimizer.techniques.graph import read
from optimizer.techniques.repair import next_count
from optimizer.workbench.session import open_session
from tests.optimizer import onnx_models
from tests.optimizer.techniques.conftest import Made

ITEMS = 400
LIMIT = 0.08
WORST = "matmul_0/MatMulAddFusion"
"""As its node is called once the addition is part of it."""


@pytest.fixture
def fragile(made: Callable[[str], Made]) -> Made:
    """Four layers; the first takes one channel that is ten thousand times the others and does not count."""
    model = made("mlp")
    model.signature = onnx_models.mlp(model.path, widths=(32, 64, 64, 64, 10))
    graph = read(model.path)
    for tensor in graph.graph.initializer:
        array = np.frombuffer(tensor.raw_data, np.float32).reshape(tuple(tensor.dims)).copy()
        if tensor.name.startswith("b"):
            array[:] = 0  # or the same class is answered whatever is asked
        if tensor.name == "w0":
            array[0] = 0
        tensor.raw_data = array.tobytes()
    model.path.write_bytes(graph.SerializeToString())
    items = np.random.default_rng(0).standard_normal((ITEMS, 32)).astype(np.float32)
    items[:, 0] *= 1e4
    np.savez(model.calibration, x=items)
    return model


def evaluated(model: Made, technique: str, **params: Any) -> dict[str, Any]:
    """With an evaluation set, from which the technique has to take what it looks at."""
    return model.optimize(
        technique,
        calibration_npz=None,
        evaluation_npz=str(model.calibration),
        params=params,
        policy={"max_disagreement": LIMIT},
    )


@pytest.mark.parametrize("technique", ["int8-static", "int8-dynamic"])
def test_the_one_layer_that_integers_ruin_is_found_and_left_alone(technique: str, fragile: Made) -> None:
    done = evaluated(fragile, technique)
    found = done["provenance"]["repair"]
    first, *later = found["rounds"]
    assert (first["layers"], first["held"]) == (0, False)
    assert first["loss"] > found["limit"] == LIMIT
    assert [(row["layers"], row["held"]) for row in later] == [(1, True)]
    assert (found["left_in_float"], next(iter(found["signal_to_noise_db"]))) == ([WORST], WORST)
    said = [row["message"] for row in fragile.messages if row["kind"] == "log"]
    assert any(line.startswith("With 1 of 4 layers in float (“") for line in said)
    floats = {
        node.input[0]
        for node in read(fragile.folder / "out/made.onnx").graph.node
        if node.op_type in ("MatMul", "Gemm")
    }
    assert "x" in floats, "what went into the layer goes into it as it is"


def test_openvino_leaves_the_same_layer_alone(fragile: Made) -> None:
    done = evaluated(fragile, "openvino")
    found = done["provenance"]["repair"]
    tried = [(row["layers"], bool(row["others"]), row["held"]) for row in found["rounds"]]
    assert tried == [(0, False, False), (0, True, False), (1, True, True)]
    (left,) = found["left_in_float"]
    assert left == WORST.partition("/")[0]
    feed = {"x": np.load(fragile.calibration)["x"][:4]}
    (ours,), (theirs,) = fragile.answers(done, feed), open_session(fragile.path).run(["y"], feed)
    np.testing.assert_allclose(ours, theirs, atol=0.1 * np.abs(theirs).max())
    assert len(done["evaluation_items"]) > len(found["evaluation_items"])


def test_what_the_search_looks_at_is_apart_from_what_calibrates_and_is_not_compared(fragile: Made) -> None:
    done = evaluated(fragile, "int8-static", calibration_items=64)
    looked_at = done["provenance"]["repair"]["evaluation_items"]
    assert (len(looked_at), len(done["evaluation_items"])) == (ITEMS // 4, ITEMS // 4 + 64)
    assert set(looked_at) < set(done["evaluation_items"])


def test_a_looser_gate_repairs_nothing_and_so_do_no_rounds(fragile: Made) -> None:
    policy = {"policy": {"max_loss": 1.0, "max_disagreement": 1.0}}
    loose = fragile.optimize("int8-dynamic", evaluation_npz=str(fragile.calibration), **policy)
    assert [row["layers"] for row in loose["provenance"]["repair"]["rounds"]] == [0]
    unrepaired = evaluated(fragile, "int8-dynamic", repair_rounds=0)
    assert (unrepaired["provenance"]["repair"], unrepaired["evaluation_items"]) == (None, [])


def test_when_the_rounds_end_first_what_loses_least_is_given(
    fragile: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "loss_limit", lambda *_: -1.0)
    done = evaluated(fragile, "int8-dynamic", repair_rounds=1)
    rounds = done["provenance"]["repair"]["rounds"]
    assert [row["layers"] for row in rounds] == [0, 1]
    assert done["provenance"]["repair"]["left_in_float"] == [WORST]
    assert "The budget does not hold; this is the version that loses least." in [
        row.get("message") for row in fragile.messages
    ]


def test_where_nothing_would_be_left_to_quantize_it_is_refused(
    fragile: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "loss_limit", lambda *_: -1.0)
    with pytest.raises(Unprocessable) as caught:
        evaluated(fragile, "int8-dynamic", repair_rounds=8)
    assert caught.value.code == "budget_not_held"
    assert "With one of 4 layers left to quantize, " in caught.value.detail
    assert not (fragile.folder / "out/made.onnx").exists()


@given(st.integers(1, 300), st.integers(0, 300))
def test_the_fewest_layers_that_are_enough_are_found_in_few_rounds(layers: int, enough: int) -> None:
    held = {0: enough == 0}
    while not held[0] and (count := next_count(held, layers=layers)) is not None:
        assert 0 < count < layers
        assert count not in held
        held[count] = count >= enough
    if enough < layers:
        assert min(count for count, holds in held.items() if holds) == enough
    else:
        assert not any(held.values())
    assert len(held) <= 13
