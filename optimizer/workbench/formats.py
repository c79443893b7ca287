"""The formats an artifact can have, and how each is opened to be compared. One table; openers are imported on use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from controlplane.core import onnx_session
from controlplane.core.errors import Unprocessable
from controlplane.registry.formats import LABELS
from optimizer.workbench.signature import Array, Feed


class Session(Protocol):
    """An opened model. ONNX Runtime's `InferenceSession` is one as it is."""

    def run(self, outputs: Sequence[str], feed: Feed, /) -> Sequence[Array]:
        """The named outputs. Raises whatever the runtime raises."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """`toolchain` is what opening it on a CPU needs, None for the worker's own packages.

    `opener` is "module:function", `function(path, *, threads) -> Session`; None for what does not run on a CPU.
    `gpu_opener` is the same for the GPU that the process sees, with the toolchain `cuda`; None for what is not compared
    there.
    """

    key: str
    label: str
    suffix: str
    toolchain: str | None = None
    opener: str | None = None
    runs_by: str = ""
    """What answers, and how it is set, as a report says it."""
    gpu_opener: str | None = None
    gpu_runs_by: str = ""


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        row.key: row
        for row in (
            Format(
                key="onnx",
                label=LABELS["onnx"],
                suffix=".onnx",
                opener="optimizer.workbench.session:open_session",
                runs_by=f"ONNX Runtime, ORT_ENABLE_ALL without {onnx_session.SLOWER}",
                gpu_opener="optimizer.workbench.cuda:open_onnx",
                gpu_runs_by="ONNX Runtime, CUDA, ORT_ENABLE_ALL",
            ),
            Format(
                key="openvino",
                label=LABELS["openvino"],
                suffix=".zip",
                toolchain="openvino",
                opener="optimizer.workbench.openvino:open_session",
                runs_by="OpenVINO, LATENCY, one stream",
            ),
            Format(
                key="tensorrt",
                label=LABELS["tensorrt"],
                suffix=".engine",
                gpu_opener="optimizer.workbench.cuda:open_engine",
                gpu_runs_by="TensorRT, kernels made before the request, no CUDA graph",
            ),
            Format(
                key="torch",
                label=LABELS["torch"],
                suffix=".pt2",
                toolchain="torch",
                opener="optimizer.workbench.torch_program:open_program",
                runs_by="PyTorch, eager, inference mode",
            ),
            Format(
                key="transformers",
                label=LABELS["transformers"],
                suffix=".zip",
                toolchain="torch",
                opener="optimizer.workbench.transformers_model:open_model",
                runs_by="PyTorch, eager, inference mode, SDPA attention",
            ),
            Format(
                key="sklearn",
                label=LABELS["sklearn"],
                suffix=".skops",
                toolchain="sklearn",
                opener="optimizer.workbench.sklearn_model:open_model",
                runs_by="scikit-learn, one job",
            ),
            Format(
                key="torchscript",
                label=LABELS["torchscript"],
                suffix=".zip",
                toolchain="torch",
                opener="optimizer.workbench.torch_script:open_script",
                runs_by="PyTorch, TorchScript, inference mode",
            ),
        )
    }
)


def known(key: str) -> Format:
    """Raises Unprocessable("unknown_format")."""
    if key not in FORMATS:
        raise Unprocessable(
            "unknown_format", f"There is no format “{key[:40]}”.", f"There are: {', '.join(FORMATS)}."
        )
    return FORMATS[key]


def compared_on_gpu(parent: str, made: str) -> bool:
    """Whether these two can be compared on a GPU: what runs on nothing else is, and what a GPU was chosen for."""
    return bool(known(parent).gpu_opener and known(made).gpu_opener)


def measured_on(*keys: str) -> set[str]:
    """Toolchains that opening all of these on a CPU needs."""
    rows = [known(key) for key in keys]
    return {row.toolchain for row in rows if row.opener and row.toolchain}


def opened_by(parent: str, made: str) -> tuple[str | None, str | None]:
    """The toolchain of the process that compares the two on a CPU, and the one of the process beside it that has the
    parent open; None for our own packages, and for no such process."""
    theirs, own = known(parent).toolchain, known(made).toolchain
    return (own, theirs) if own and theirs and own != theirs else (own or theirs, None)


def open_as(key: str, path: Path, *, threads: int = 1, gpu: bool = False) -> Session:
    """Raises Unprocessable: `cannot_run_here`, or what the format's runtime refuses it for."""
    row = known(key)
    opener = row.gpu_opener if gpu else row.opener
    if opener is None:
        raise Unprocessable("cannot_run_here", f"{row.label} does not run on a {'GPU' if gpu else 'CPU'}.")
    module, _, name = opener.partition(":")
    session: Session = getattr(import_module(module), name)(path, threads=threads)
    return session


def load_runtime(key: str, *, gpu: bool = False) -> None:
    """What opening the first model of the format in a process costs once, whatever the model."""
    row = known(key)
    opener = row.gpu_opener if gpu else row.opener
    if opener is not None:
        import_module(opener.partition(":")[0]).load_runtime()
