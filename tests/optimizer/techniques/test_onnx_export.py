"""ONNX export on the real toolchain, and its comparison of both sides, which needs none."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from controlplane.core.errors import Unprocessable
from controlplane.core.sandbox import MIB, Child, Limits
from optimizer.domain.recipe import Recipe, Step
from optimizer.techniques import check_recipe, refusals, technique, toolchains_of
from optimizer.techniques.onnx_export import parity
from optimizer.techniques.port import ModelSummary, Work
from optimizer.workbench.journal import Journal
from optimizer.workbench.session import open_session
from optimizer.workbench.signature import Signature
from tests import toolchains
from tests.optimizer import onnx_models

FEEDS = {
    "tokens": {"ids": [[1, 2, 49]] * 3, "mask": [[1, 1, 0], [1, 0, 0], [1, 1, 1]]},
    "twice": {"x": [[1, 2, 3, 4]]},
    "t5": {"ids": [[1, 2, 49]] * 2},
    "alone": {"x": [[1, 2, 3, 4], [4, 1, 1, 1]]},
    "bessel": {"x": [[1, 2, 3, 4]]},
    "branch": {"x": [[1, 2, 3, 4]] * 2, "ids": [[1, 2, 3], [4, 5, 6]]},
    "mpnet": {"input_ids": [[1, 59, 3]] * 2, "attention_mask": [[1, 1, 1], [1, 0, 0]]},
    "bert": {"input_ids": [[1, 59, 3]] * 2, "attention_mask": [[1, 1, 1], [1, 0, 0]]},
}


def test_programs_are_exported_with_their_names_and_free_dimensions(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One child for all, because importing PyTorch is what costs."""
    forbidden = tmp_path_factory.mktemp("elsewhere") / "secret"
    forbidden.write_bytes(bytes(16))
    with Child.start(
        entry="tests.optimizer.techniques.torch_models:export",
        spec={
            "folder": str(tmp_path),
            "feeds": FEEDS,
            "params": {"tokens": {"opset": 18}},
            "forbidden": str(forbidden),
        },
        scratch=tmp_path,
        limits=Limits(memory_bytes=8192 * MIB, cpu_s=120, wall_s=240, file_bytes=100 * MIB, processes=64),
        python=toolchains.interpreter("torch"),
    ) as child:
        outcome = child.outcome()
    assert outcome.result is not None, outcome.detail
    _is_exported(outcome.result["tokens"], tmp_path / "tokens.onnx", "tokens")
    _is_exported(outcome.result["twice"], tmp_path / "twice.onnx", "twice")
    _is_exported(outcome.result["t5"], tmp_path / "t5.onnx", "t5")
    _is_exported(outcome.result["bert"], tmp_path / "bert.onnx", "bert")
    assert "IsNaN" not in {node.op_type for node in onnx.load(tmp_path / "bert.onnx").graph.node}
    _is_exported(outcome.result["mpnet"], tmp_path / "mpnet.onnx", "mpnet")
    _is_exported(outcome.result["branch"], tmp_path / "branch.onnx", "branch")
    assert outcome.result["branch"]["done"]["provenance"]["exporter"] == "torch.onnx, TorchScript"

    tokens = outcome.result["tokens"]
    assert tokens["signature"]["inputs"][0]["shape"][0] == "batch"
    assert len(set(tokens["digests"])) == 1
    made = tokens["done"]["provenance"]
    assert (made["opset"], made["versions"].keys() >= {"torch", "onnxscript"}) == (18, True)
    assert {"linear", "embedding"} & set(made["renamed"])
    assert len(made["parity"]) == parity.ENOUGH
    said = [message["message"] for message in tokens["messages"] if message["kind"] == "log"]
    assert any("also the name of an inner value" in line for line in said)
    assert not list(tmp_path.glob("technique-*"))

    refused = outcome.result["bessel"]
    assert refused["code"] == "not_exportable"
    assert "bessel" in refused["detail"]
    assert outcome.result["alone"].get("code") != "training_mode"
    learning = outcome.result["learning"]
    assert (learning["code"], "“dropout” is on only" in learning["detail"]) == ("training_mode", True)

    lies, spies = outcome.result["lies"], outcome.result["spies"]
    assert (lies["code"], "“scores” is float32 [2, 3]" in lies["detail"]) == ("signature_differs", True)
    assert spies["code"] == "script_fails"
    narrow = outcome.result["narrow"]
    assert (narrow["code"], "With x [2, 5], ids [2, 16]: " in narrow["detail"]) == ("script_fails", True)
    assert "shapes cannot be multiplied" in narrow["detail"]
    assert [file.name for file in forbidden.parent.iterdir()] == ["secret"]


def _is_exported(result: dict[str, Any], path: Path, name: str) -> None:
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    signature = result["signature"]
    for ports, specs in (
        (session.get_inputs(), signature["inputs"]),
        (session.get_outputs(), signature["outputs"]),
    ):
        assert [(port.name, port.shape) for port in ports] == [
            (spec["name"], spec["shape"]) for spec in specs
        ]
    feed = {
        key: np.asarray(value, np.float32 if key in {"x", "mask"} else np.int64)
        for key, value in FEEDS[name].items()
    }
    for ours, theirs in zip(session.run(None, feed), result["answers"], strict=True):
        np.testing.assert_allclose(ours, np.asarray(theirs), rtol=1e-5, atol=1e-6)


def work(folder: Path, made: Any) -> Work:
    signature = made(folder / "made.onnx")
    return Work(
        input=folder / "source",
        input_format="torch",
        output=folder / "made.onnx",
        scratch=folder,
        signature=Signature.from_json(signature),
        calibration=None,
        calibration_source="evaluation_set",
        seed=7,
        journal=Journal(emit=lambda message: None, steps=1),
    )


class Off:
    """A source that answers a little more than the file does."""

    def __init__(self, path: Path, *, by: float, most: int = 10**6) -> None:
        self.session, self.by, self.most = open_session(path), by, most

    def run(self, outputs: Any, feed: Any, /) -> Any:
        if len(next(iter(feed.values()))) > self.most:
            raise ValueError("too many for this model")
        return [answer * (1 + self.by) for answer in self.session.run(outputs, feed)]


def test_both_sides_are_compared_at_several_shapes(tmp_path: Path) -> None:
    job = work(tmp_path, onnx_models.mlp)
    compared = parity.compare(Off(job.output, by=1e-6), job)
    assert len({row.batch for row in compared}) == parity.ENOUGH
    assert all(0 < row.distance < 1e-5 for row in compared)


def test_other_answers_than_the_source_gives_refuse_the_export(tmp_path: Path) -> None:
    job = work(tmp_path, onnx_models.mlp)
    with pytest.raises(Unprocessable, match="batch of 1") as error:
        parity.compare(Off(job.output, by=0.01), job)
    assert error.value.code == "parity"


def test_a_shape_that_the_source_refuses_says_nothing_and_none_at_all_is_said(tmp_path: Path) -> None:
    job = work(tmp_path, onnx_models.mlp)
    assert {row.batch for row in parity.compare(Off(job.output, by=0, most=2), job)} == {1, 2}
    with pytest.raises(Unprocessable, match="too many for this model") as error:
        parity.compare(Off(job.output, by=0, most=0), job)
    assert error.value.code == "parity_unknown"


def test_only_the_export_takes_a_program_and_others_say_so() -> None:
    summary = ModelSummary(format="torch")
    assert not refusals(
        technique("onnx-export"), onnx_models.MAGIKA_SIGNATURE, summary, has_calibration=False
    )
    (refusal,) = refusals(technique("fp16"), onnx_models.MAGIKA_SIGNATURE, summary, has_calibration=False)
    assert refusal.code == "wrong_format"
    assert "onnx-export" in refusal.detail


def test_a_recipe_may_go_on_from_the_export_and_waits_for_a_worker_with_pytorch() -> None:
    recipe = Recipe(
        steps=(Step(technique="onnx-export", params={}), Step(technique="int8-dynamic", params={}))
    )
    check_recipe(
        recipe, signature=onnx_models.MAGIKA_SIGNATURE, summary={"format": "torch"}, has_calibration=False
    )
    assert toolchains_of(recipe, parent_format="torch") == {"torch"}


def test_models_of_scikit_learn_are_exported_or_refused_for_what_is_true(tmp_path: Path) -> None:
    with Child.start(
        entry="tests.optimizer.techniques.sklearn_models:export",
        spec={"folder": str(tmp_path)},
        scratch=tmp_path,
        limits=Limits(memory_bytes=8192 * MIB, cpu_s=120, wall_s=240, file_bytes=100 * MIB, processes=64),
        python=toolchains.interpreter("sklearn"),
    ) as child:
        outcome = child.outcome()
    assert outcome.result is not None, outcome.detail
    found = outcome.result
    refusals = {"no probabilities": "no_probabilities", "no converter": "not_exportable"}
    assert {name: found[name].get("code") for name in refusals} == refusals
    for name in found.keys() - refusals.keys():
        made = found[name]
        assert "onnx" in made, (name, made)
        session = onnxruntime.InferenceSession(made["onnx"], providers=["CPUExecutionProvider"])
        assert [port.name for port in session.get_outputs()] == [
            port["name"] for port in made["signature"]["outputs"]
        ]
        given = session.run(None, {"input": np.asarray(made["rows"], np.float32)})
        for ours, theirs in zip(given, made["answers"], strict=True):
            np.testing.assert_allclose(ours, np.asarray(theirs), rtol=1e-3, atol=1e-4, err_msg=name)
        provenance = made["done"]["provenance"]
        assert (provenance["exporter"], len(provenance["parity"])) == ("skl2onnx", parity.ENOUGH)
        assert provenance["versions"].keys() >= {"scikit-learn", "skl2onnx", "skops"}
    assert len(found["words"]["answers"]) == 1
    assert np.shape(found["several"]["answers"]) == (1, 9, 2)


def test_the_toolchain_of_an_export_is_that_of_its_source() -> None:
    recipe = Recipe(
        steps=(Step(technique="onnx-export", params={}), Step(technique="int8-dynamic", params={}))
    )
    assert toolchains_of(recipe, parent_format="sklearn") == {"sklearn"}
    assert toolchains_of(recipe, parent_format="torch") == {"torch"}
