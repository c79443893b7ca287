"""A side of a comparison that is open in another process."""

import signal
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from controlplane.core.errors import Unprocessable
from controlplane.core.sandbox import Child, Limits
from optimizer.evaluation import benchmark
from optimizer.evaluation.elsewhere import Elsewhere
from optimizer.workbench.session import open_session
from tests import toolchains
from tests.optimizer import onnx_models

LIMITS = Limits(memory_bytes=8 * 2**30, cpu_s=120, wall_s=120, file_bytes=2**30, processes=256)
HERE = Path(sys.executable)


def there(path: Path) -> Elsewhere:
    return Elsewhere(HERE, format="onnx", path=path, threads=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx_models.mlp(tmp_path / "model.onnx", widths=(32, 64, 10))
    return tmp_path / "model.onnx"


def test_it_answers_as_the_same_file_does_here(model: Path) -> None:
    feed = {"x": np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)}
    opened = there(model)
    np.testing.assert_array_equal(opened.run(["y"], feed)[0], open_session(model).run(["y"], feed)[0])
    assert opened.versions["onnxruntime"]
    opened.close()


def test_what_its_runtime_and_its_opener_say_is_said_here(model: Path, tmp_path: Path) -> None:
    opened = there(model)
    with pytest.raises(RuntimeError, match="Got invalid dimensions for input: x"):
        opened.run(["y"], {"x": np.ones((1, 31), np.float32)})
    assert len(opened.run(["y"], {"x": np.ones((1, 32), np.float32)})) == 1, "it goes on after a failure"
    opened.close()
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(Unprocessable) as refused:
        there(tmp_path / "no.onnx")
    assert refused.value.code == "model_does_not_open"


def test_a_process_that_is_gone_is_told_as_that(model: Path) -> None:
    opened = there(model)
    (process,) = (one for one in psutil.Process().children() if "elsewhere_child" in " ".join(one.cmdline()))
    process.send_signal(signal.SIGKILL)
    with pytest.raises(RuntimeError, match="ended with -9"):
        opened.run(["y"], {"x": np.ones((1, 32), np.float32)})


def test_the_benchmark_takes_the_time_that_it_took_there(model: Path) -> None:
    """A clock that stands still here would show nothing of a model that is open here."""
    opened = there(model)
    opened.hold([])
    arm = opened.arm(["y"], [{"x": np.ones((1, 32), np.float32)}])
    pace = benchmark.Pace(min_rounds=5, max_rounds=5)
    taken = benchmark.rounds({"a": arm, "b": arm}, pace=pace, budget_s=1, seed=0, clock=lambda: 0.0)
    assert all(len(seconds) == 5 for seconds in taken.values())
    assert all((seconds > 1e-7).all() for seconds in taken.values())
    opened.close()


def test_pytorch_is_compared_with_openvino_though_no_process_has_both(tmp_path: Path) -> None:
    """As a worker does it: in the sandbox, where the packages of the one do not exist for the other."""
    torch, openvino = toolchains.interpreter("torch"), toolchains.interpreter("openvino")
    with Child.start(
        entry="tests.optimizer.techniques.torch_models:exported",
        spec={"folder": str(tmp_path), "name": "tokens"},
        scratch=tmp_path,
        limits=LIMITS,
        python=torch,
    ) as child:
        outcome = child.outcome()
    made = outcome.result
    assert made is not None, outcome.detail
    variant = toolchains.as_openvino(Path(made["onnx"]), signature=made["signature"], folder=tmp_path)
    ids = np.random.default_rng(0).integers(0, 50, size=(40, 6))
    np.savez(tmp_path / "set.npz", ids=ids, mask=np.ones((40, 6), np.float32))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    spec = {
        "parent_path": made["program"],
        "parent_format": "torch",
        "parent_python": str(torch),
        "variant_path": str(variant),
        "variant_format": "openvino",
        "signature": made["signature"],
        "evaluation_npz": str(tmp_path / "set.npz"),
        "budget_s": 3.0,
    }
    with Child.start(
        entry="optimizer.evaluation.child:evaluate",
        spec=spec,
        scratch=scratch,
        limits=LIMITS,
        readable=[tmp_path, torch.parents[1]],
        python=openvino,
    ) as child:
        outcome = child.outcome()
    report = outcome.result
    assert report is not None, outcome.detail
    assert report["verdict"] not in ("failed", "not_measured"), report["sentence"]
    assert [row["batch_size"] for row in report["timings"]] == [1, 8, 32]
    assert report["accuracy"]["outputs"][0]["max_abs_difference"] < 0.01
    assert report["machine"]["versions"].keys() >= {"torch", "openvino"}
    assert report["method"]["parent_runs_by"].startswith("PyTorch")
    for side in ("parent", "variant"):
        assert report[side]["load_ms"] > 0
