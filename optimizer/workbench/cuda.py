"""Opens models on the GPU that this process sees, to be compared there. Needs the toolchain `cuda`."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from controlplane.core import onnx_session
from controlplane.core.errors import Unprocessable
from optimizer.workbench.engine import Engine, EngineFailed, runtime_of
from optimizer.workbench.session import first_line, pass_on

PROVIDER = "CUDAExecutionProvider"


def load_runtime() -> None:
    """All that is installed, and the driver: the first use of a GPU makes a context there, whoever it is for."""
    import onnxruntime
    from cuda.bindings import runtime

    onnxruntime.preload_dlls()
    for name in ("tensorrt_rtx", "tensorrt"):
        if find_spec(name):
            import_module(name)
    runtime.cudaFree(0)


def open_onnx(path: Path, *, threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` on the GPU. Raises Unprocessable: `model_does_not_open`, and `no_cuda` where
    ONNX Runtime would have gone on on the CPU, as it does with a warning in its log."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    onnxruntime.preload_dlls()
    options = onnx_session.set_up_for_gpu(onnxruntime.SessionOptions(), threads=threads)
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=[PROVIDER, "CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions share no base class but Exception
        pass_on(error)
        raise Unprocessable(
            "model_does_not_open", "ONNX Runtime cannot open this model on the GPU.", first_line(error)
        ) from error
    if PROVIDER not in session.get_providers():
        raise Unprocessable(
            "no_cuda",
            "ONNX Runtime cannot use the GPU.",
            "It needs NVIDIA's driver 580 or later, and the CUDA toolchain as it was installed.",
        )
    return session


def open_engine(path: Path, *, threads: int = 1) -> Engine:
    """By the product that built it. Raises Unprocessable: `no_toolchain`, and `model_does_not_open` with what it or
    CUDA says."""
    name = runtime_of(path)
    if find_spec(name) is None or find_spec("cuda") is None:
        raise Unprocessable(
            "no_toolchain",
            "What loads this engine is not installed on this worker.",
            f"Its toolchain “cuda” has no {name}.",
        )
    try:
        return Engine(import_module(name), import_module("cuda.bindings.runtime"), path)
    except (EngineFailed, RuntimeError, TypeError) as error:
        pass_on(error)
        raise Unprocessable(
            "model_does_not_open", "TensorRT cannot open this engine.", first_line(error)
        ) from error
