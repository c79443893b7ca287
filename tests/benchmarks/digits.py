"""A classifier of scikit-learn's digits that is trained here, and the items: for benchmarks of what is made of it.

The net is trained once on this machine and kept in `.slipway/bench`, for whoever measures next.
"""

import gzip
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from controlplane.settings.environment import REPOSITORY, read_environment
from tests.benchmarks.children import SEED, Model, apply, interpreter

DIGITS = "openvino/lib/python3*/site-packages/sklearn/datasets/data/digits.csv.gz"
TRAINING = "digits_training"
EPOCHS = 8
TEST = 540
SIDE = 32
SIGNATURE: dict[str, Any] = {
    "inputs": [{"name": "image", "dtype": "FP32", "shape": ["batch", 1, SIDE, SIDE]}],
    "outputs": [{"name": "scores", "dtype": "FP32", "shape": ["batch", 10]}],
    "batch_axis": 0,
}


@dataclass(frozen=True, kw_only=True)
class Digits:
    """`trained` is the PyTorch program, `exported` its ONNX file. `sets`: `test` is what nobody learns from."""

    folder: Path
    trained: Model
    exported: Model
    sets: dict[str, Path]


def pixels() -> tuple[Any, Any]:
    """Images [1797, 1, 32, 32] in 0 to 1, and labels: the file that scikit-learn ships, made larger."""
    (path,) = read_environment().toolchains.glob(DIGITS)
    with gzip.open(path) as file:
        table = np.loadtxt(file, delimiter=",")
    images = (table[:, :64] / 16).reshape(-1, 8, 8).astype(np.float32)
    larger = np.kron(images, np.ones((1, SIDE // 8, SIDE // 8), dtype=np.float32))
    return larger[:, None], table[:, 64].astype(np.int64)


@contextmanager
def digits() -> Iterator[Digits]:
    """In a folder that is gone afterwards. Cost: the training, where it was not done before. Raises NotMade."""
    with TemporaryDirectory(prefix="slipway-bench-") as name:
        folder = Path(name)
        sets = _sets(folder)
        program = _trained(items=sets["labelled"])
        trained = Model(path=program, format="torch", signature=SIGNATURE)
        exported, _ = apply("onnx-export", {}, trained, folder=folder, calibration=sets["unlabelled"])
        yield Digits(folder=folder, trained=trained, exported=exported, sets=sets)


def _sets(folder: Path) -> dict[str, Path]:
    images, labels = pixels()
    order = np.random.default_rng(SEED).permutation(len(images))
    test, train = order[:TEST], order[TEST:]
    known = np.random.default_rng(SEED).permutation(len(train)) < len(train) // 10
    columns: dict[str, dict[str, Any]] = {
        "test": {"image": images[test], "labels": labels[test]},
        "labelled": {"image": images[train], "labels": labels[train]},
        "unlabelled": {"image": images[train]},
        "tenth": {"image": images[train], "labels": np.where(known, labels[train], -1)},
    }
    for name, arrays in columns.items():
        np.savez(folder / f"{name}.npz", **arrays)
    return {name: folder / f"{name}.npz" for name in columns}


def _trained(*, items: Path) -> Path:
    written = sha256(Path(__file__).with_name(f"{TRAINING}.py").read_bytes()).hexdigest()[:8]
    kept = REPOSITORY / ".slipway/bench" / f"digits-{written}-{EPOCHS}.pt2"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        command = [str(interpreter("torch")), "-m", f"tests.benchmarks.{TRAINING}", str(items)]
        subprocess.run([*command, str(kept), str(EPOCHS)], cwd=REPOSITORY, check=True)
    return kept
