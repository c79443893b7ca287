"""Reports of engines: on the GPU that they are for, and what is compared where there is none."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimizer.workbench import cuda, session
from tests.optimizer import onnx_models
from tests.optimizer.evaluation.conftest import Evaluate


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """Nothing here opens it."""
    path = tmp_path / "made.engine"
    path.write_bytes(b"vtrt" * 100)
    return path


def test_an_engine_is_not_timed_and_the_model_that_it_was_compiled_from_answers_for_it(
    tmp_path: Path, engine: Path, report_of: Evaluate
) -> None:
    made = onnx_models.scaled(tmp_path / "model.onnx")
    onnx_models.scaled(tmp_path / "between.onnx", factor=2.0001)
    stand_in = {"stand_in_path": str(tmp_path / "between.onnx"), "stand_in_format": "onnx"}
    report = report_of(tmp_path / "model.onnx", engine, made, variant_format="tensorrt", **stand_in)
    assert report["verdict"] == "not_measured"
    assert "the model that it was compiled from: agrees with the parent on 100 %" in report["sentence"]
    assert (report["timings"], report["control"], report["service_curve"]) == ([], [], [])
    assert 0 < report["accuracy"]["outputs"][0]["max_abs_difference"] < 0.01
    assert report["variant"] == {"file_bytes": 400, "load_ms": None, "memory_bytes": None}
    assert report["method"]["variant_runs_by"] == ""
    assert report["notes"] == [
        "The variant is a TensorRT engine, which does not run here, so it was not timed. The answers compared are "
        "those of the ONNX model that it was compiled from."
    ]


def test_an_engine_is_measured_on_the_gpu_against_its_parent_there(
    tmp_path: Path, engine: Path, report_of: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is played by this processor: what runs there is opened through the same door."""
    made = onnx_models.scaled(tmp_path / "model.onnx")
    onnx_models.scaled(tmp_path / "inside.onnx", factor=2.0001)

    def open_engine(path: Path, *, threads: int) -> Any:
        assert path == engine
        return OnlyUpTo(8, session.open_session(tmp_path / "inside.onnx", threads=threads))

    monkeypatch.setattr(cuda, "open_onnx", session.open_session)
    monkeypatch.setattr(cuda, "open_engine", open_engine)
    report = report_of(
        tmp_path / "model.onnx", engine, made, variant_format="tensorrt", gpu=True, largest_batch=8
    )
    assert report["verdict"] != "not_measured"
    assert [row["batch_size"] for row in report["timings"]] == [1, 8]
    assert max(row["batch_size"] for row in report["service_curve"]) == 8
    assert 0 < report["accuracy"]["outputs"][0]["max_abs_difference"] < 0.01
    assert report["machine"]["gpu"]
    assert report["method"]["parent_runs_by"].startswith("ONNX Runtime, CUDA")
    assert report["method"]["variant_runs_by"].startswith("TensorRT")
    assert report["notes"] == []


@dataclass
class OnlyUpTo:
    """What an engine does beyond its largest batch."""

    most: int
    inside: Any

    def run(self, names: list[str], feed: dict[str, Any]) -> Any:
        assert all(len(array) <= self.most for array in feed.values()), "beyond the profile"
        return self.inside.run(names, feed)


def test_why_an_engine_was_not_timed_is_told(tmp_path: Path, engine: Path, report_of: Evaluate) -> None:
    made = onnx_models.scaled(tmp_path / "model.onnx")
    why = "It was built for compute capability 8.9; this GPU has 7.5."
    report = report_of(tmp_path / "model.onnx", engine, made, variant_format="tensorrt", no_gpu=why)
    assert report["notes"][0].startswith(
        f"The variant is a TensorRT engine, which does not run here, so it was not timed. {why} It was compiled"
    )


def test_an_engine_of_the_parent_as_it_is_has_no_answers_to_compare(
    tmp_path: Path, engine: Path, report_of: Evaluate
) -> None:
    made = onnx_models.scaled(tmp_path / "model.onnx")
    report = report_of(tmp_path / "model.onnx", engine, made, variant_format="tensorrt")
    assert (report["verdict"], report["accuracy"]) == ("not_measured", None)
    assert report["sentence"].endswith("its accuracy could not be measured.")
    assert report["notes"][-1].endswith(
        "compiled from the parent as it is, so there were no answers to compare."
    )


def test_an_engine_of_a_model_that_answers_no_numbers_fails(
    tmp_path: Path, engine: Path, report_of: Evaluate
) -> None:
    made = onnx_models.scaled(tmp_path / "model.onnx")
    onnx_models.scaled(tmp_path / "between.onnx", factor=np.nan)
    stand_in = {"stand_in_path": str(tmp_path / "between.onnx"), "stand_in_format": "onnx"}
    report = report_of(tmp_path / "model.onnx", engine, made, variant_format="tensorrt", **stand_in)
    assert report["verdict"] == "failed"
