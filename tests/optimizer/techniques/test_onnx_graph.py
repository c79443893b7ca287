"""Optimization ahead of time: the same answers, by either tool."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from controlplane.core.errors import Unprocessable
from tests.optimizer import onnx_models
from tests.optimizer.techniques.conftest import Made


@pytest.mark.parametrize("params", [{"level": "basic"}, {"level": "extended"}, {"tool": "onnxslim"}], ids=str)
@pytest.mark.parametrize("name", ["mlp", "cnn", "magika"])
def test_no_answer_changes(name: str, params: dict[str, str], made: Callable[[str], Made]) -> None:
    model = made(name)
    done = model.optimize("onnx-graph", params=params)
    with np.load(model.calibration) as items:
        feed = {key: items[key][:2] for key in items}
    theirs, ours = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feed)
        for path in (model.path, done["output_path"])
    )
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_onnxslim_keeps_to_standard_operators_and_onnxruntime_does_not(made: Callable[[str], Made]) -> None:
    def domains(**params: str) -> set[str]:
        done = made("cnn").optimize("onnx-graph", params=params)
        return {node.domain for node in onnx.load(done["output_path"]).graph.node}

    assert domains(tool="onnxslim") == {""}
    assert domains(tool="onnxruntime") > {""}


def test_what_onnxslim_fails_on_is_refused_with_its_words(made: Callable[[str], Made]) -> None:
    """It needs an operator set of ONNX's own domain, which a model of scikit-learn may do without."""
    model = made("mlp")
    proto = onnx.load(str(model.path))
    scaler = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[1.0])
    del proto.graph.node[:], proto.graph.initializer[:], proto.opset_import[:]
    proto.graph.node.append(scaler)
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 32
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    onnx.save(proto, str(model.path))
    with pytest.raises(Unprocessable) as caught:
        model.optimize("onnx-graph", params={"tool": "onnxslim"})
    assert (caught.value.code, caught.value.title) == ("not_simplified", "onnxslim fails on this model.")
    assert model.optimize("onnx-graph")["format"] == "onnx"


@pytest.mark.parametrize("opset", [12, 17])
@pytest.mark.parametrize("centred", [True, False])
def test_a_normalization_is_written_only_in_operators_that_its_opset_has(
    opset: int, centred: bool, tmp_path: Path
) -> None:
    """ONNX Runtime fuses it into operators of ONNX's own domain, which stand in no older opset and some in none."""
    path = tmp_path / "norm.onnx"
    made = Made(tmp_path, "mlp")
    made.path, made.signature = path, onnx_models.normalized(path, centred=centred, opset=opset)
    done = made.optimize("onnx-graph")
    onnx.checker.check_model(done["output_path"])
    assert ("LayerNormalization" in done["provenance"]["nodes_after"]) == (centred and opset == 17)


def test_it_says_how_many_nodes_are_left_and_prints_nothing(
    made: Callable[[str], Made], capfd: pytest.CaptureFixture[str]
) -> None:
    model = made("magika")
    done = model.optimize("onnx-graph", params={"tool": "onnxslim"})
    said = [message["message"] for message in model.messages if message["kind"] == "log"]
    before = sum(done["provenance"]["nodes_before"].values())
    assert said == [f"{before} nodes became {sum(done['provenance']['nodes_after'].values())}."]
    assert capfd.readouterr() == ("", "")
