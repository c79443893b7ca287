from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controlplane.core.errors import Unprocessable
from controlplane.core.sandbox import Child
from optimizer.techniques import technique
from optimizer.techniques.child import run
from optimizer.workbench.formats import FORMATS
from optimizer.workbench.signature import Array, Feed
from tests.optimizer import onnx_models, where_it_runs
from tests.toolchains import LIMITS, interpreter

type Optimize = Callable[..., dict[str, Any]]

SEED = 7
ENDS = {"result", "refused"}


class Made:
    """A model in a folder of its own, with a set to calibrate on, and what a technique said about it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.path = folder / f"{name}.onnx"
        self.messages: list[dict[str, Any]] = []
        match name:
            case "mlp":
                self.signature = onnx_models.mlp(self.path)
            case "cnn":
                self.signature = onnx_models.cnn(self.path)
            case _:
                self.path, self.signature = onnx_models.magika_path(), onnx_models.MAGIKA_SIGNATURE
        self.calibration = folder / "calibration.npz"
        if name == "magika":
            tokens = np.random.default_rng(0).integers(0, 257, (16, 2048), dtype=np.int32)
            np.savez(self.calibration, bytes=tokens)
        else:
            onnx_models.calibration(self.calibration, self.signature)

    def optimize(self, key: str, /, output: str = "made.onnx", **changes: Any) -> dict[str, Any]:
        return self.child(run, self.spec(key, output, **changes), toolchain=technique(key).toolchain)

    def spec(self, key: str, /, output: str = "made.onnx", **changes: Any) -> dict[str, Any]:
        (self.folder / "out").mkdir(exist_ok=True)
        return {
            "technique": key,
            "params": {},
            "input_path": str(self.path),
            "output_path": str(self.folder / "out" / output),
            "calibration_npz": str(self.calibration),
            "evaluation_npz": None,
            "signature": self.signature,
            "seed": SEED,
        } | changes

    def answers(self, done: dict[str, Any], feed: Feed) -> list[Array]:
        """Of a result, opened as its format is."""
        np.savez(self.folder / "feed.npz", **feed)
        spec = {
            "path": done["output_path"],
            "format": done["format"],
            "feed": str(self.folder / "feed.npz"),
            "outputs": [port["name"] for port in self.signature["outputs"]],
            "answers": str(self.folder / "answers.npz"),
        }
        self.child(where_it_runs.answer, spec, toolchain=FORMATS[done["format"]].toolchain)
        with np.load(spec["answers"]) as found:
            return [found[name] for name in spec["outputs"]]

    def child(
        self, entry: Callable[..., dict[str, Any]], spec: dict[str, Any], *, toolchain: str | None
    ) -> dict[str, Any]:
        """What `entry` returns: here where our own packages do, else on the toolchain, as a worker does it. What
        that child refuses with is raised."""
        if toolchain is None:
            return entry(spec, self.messages.append)
        with Child.start(
            entry=f"{entry.__module__}:{entry.__name__}",
            spec=spec,
            scratch=self.folder,
            limits=LIMITS,
            readable=[self.path],
            python=interpreter(toolchain),
        ) as child:
            while not child.finished:
                message = child.poll(1)
                if message and message["kind"] not in ENDS:
                    self.messages.append(message)
            outcome = child.outcome()
        if outcome.refusal is not None:
            raise Unprocessable(outcome.refusal.code, outcome.refusal.title, outcome.refusal.detail)
        assert outcome.result is not None, outcome
        return outcome.result


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Made]:
    return lambda name: Made(tmp_path, name)
