"""Toolchains: interpreters with packages that are too large for every worker, or do not fit beside ours.

Each is an environment of its own, made by `install/bootstrap.py` from `requirements/toolchain-<key>.lock`; a child
process runs on its interpreter, and nothing else of the product ever imports what is in it. A worker offers what it
finds, so a toolchain is added by installing it. Refused: one environment for all, where the vendors' pins conflict and
every CPU worker would carry PyTorch.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path
from types import MappingProxyType

CPU_QUEUE = "optimize.cpu"
CUDA = "cuda"
"""What engines, and the models that they are compared with, run on."""


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """`packages`: the distributions whose versions decide how an artifact comes out, as far as they are there.
    `without_gpu`: the one of them that a machine without a GPU needs; None where it makes no difference. `needs_gpu`:
    it is of no use without one."""

    key: str
    label: str
    packages: tuple[str, ...]
    without_gpu: str | None = None
    needs_gpu: bool = False


TOOLCHAINS: Mapping[str, Toolchain] = MappingProxyType(
    {
        row.key: row
        for row in (
            Toolchain(key="openvino", label="OpenVINO", packages=("openvino", "nncf")),
            Toolchain(
                key="tensorrt",
                label="TensorRT",
                packages=("tensorrt-rtx-cu12", "tensorrt"),
                without_gpu="tensorrt-rtx-cu12",
            ),
            Toolchain(
                key=CUDA,
                label="CUDA",
                packages=("onnxruntime-gpu", "tensorrt-rtx-cu12", "tensorrt"),
                needs_gpu=True,
            ),
            Toolchain(key="torch", label="PyTorch", packages=("torch", "onnxscript", "transformers")),
            Toolchain(key="sklearn", label="scikit-learn", packages=("scikit-learn", "skl2onnx", "skops")),
        )
    }
)


def python(root: Path, key: str) -> Path | None:
    """The interpreter of a toolchain below `root`, None where it is not installed."""
    found = root / key / "bin" / "python"
    return found if found.exists() else None


def installed(root: Path) -> dict[str, dict[str, str]]:
    """Versions by package by toolchain, read from the folders: nothing is started."""
    return {key: _versions(root / key, row.packages) for key, row in TOOLCHAINS.items() if python(root, key)}


def usable(found: Mapping[str, dict[str, str]], *, gpu: bool) -> dict[str, dict[str, str]]:
    """Those of the installed toolchains that do something on a machine with or without a GPU."""
    return {
        key: versions
        for key, versions in found.items()
        if gpu or (not TOOLCHAINS[key].needs_gpu and TOOLCHAINS[key].without_gpu in {None, *versions})
    }


def _versions(folder: Path, wanted: tuple[str, ...]) -> dict[str, str]:
    paths = [str(path) for path in folder.glob("lib/python3*/site-packages")]
    return {name: found.version for name in wanted for found in Distribution.discover(name=name, path=paths)}


def queue(needed: Iterable[str], *, base: str = CPU_QUEUE) -> str:
    """Where a job waits that needs these toolchains, such as `optimize.cpu.openvino`."""
    return ".".join([base, *sorted(set(needed))])


def queues(offered: Iterable[str], *, base: str = CPU_QUEUE) -> list[str]:
    """Every queue whose jobs a worker with these toolchains can run: one per combination, `base` among them."""
    keys = sorted(set(offered))
    chosen = itertools.chain.from_iterable(itertools.combinations(keys, n) for n in range(len(keys) + 1))
    return [queue(needed, base=base) for needed in chosen]
