from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimizer.techniques.child import run
from tests.optimizer import onnx_models

type Optimize = Callable[..., dict[str, Any]]

SEED = 7


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

    def optimize(self, technique: str, /, output: str = "made.onnx", **changes: Any) -> dict[str, Any]:
        spec = {
            "technique": technique,
            "params": {},
            "input_path": str(self.path),
            "output_path": str(self.folder / "out" / output),
            "calibration_npz": str(self.calibration),
            "evaluation_npz": None,
            "signature": self.signature,
            "seed": SEED,
        }
        (self.folder / "out").mkdir(exist_ok=True)
        return run(spec | changes, self.messages.append)


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Made]:
    return lambda name: Made(tmp_path, name)
