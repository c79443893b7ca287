"""Opens models as the serving stack does, and nothing else.

So the parent already gets every online graph optimization: a variant is compared with what would really be served.
Refused: comparing with an unoptimized session, which makes any technique look good.
"""

from pathlib import Path
from typing import Any

from controlplane.core import onnx_session
from controlplane.core.errors import Unprocessable

NO_MEMORY = (
    "bad_alloc",
    "bad allocation",
    "failed to allocate memory",
    "failed to serialize proto",
    "out of memory",
)


def open_session(path: Path, *, threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU.

    Raises Unprocessable("model_does_not_open") with the runtime's own first line. Cost: reads the whole file.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    options = onnx_session.set_up(onnxruntime.SessionOptions(), threads=threads)
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class but Exception
        pass_on(error)
        raise Unprocessable(
            "model_does_not_open", "ONNX Runtime cannot open this model.", first_line(error)
        ) from error


def load_runtime() -> None:
    import onnxruntime  # noqa: F401


def pass_on(error: Exception) -> None:
    """Raises what is not the model's fault: no memory (in whichever words the vendor puts it), no disk.

    Call it before turning a vendor's exception into a refusal.
    """
    if isinstance(error, MemoryError | OSError):
        raise error
    if any(words in str(error).lower() for words in NO_MEMORY):
        raise MemoryError(first_line(error)) from error


def first_line(error: BaseException) -> str:
    """A vendor's message, cut to what a reader can use."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:500]
