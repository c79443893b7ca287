"""The first run of a stranger's model: one session, one thread, small seeded inputs, within the child's limits.

ONNX Runtime is imported here and nowhere else in intake. A free dimension is 1 at first; where a graph cannot
work with 1 (a convolution larger than its image), larger sizes are tried before the model is only suspected.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as pybind

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.complaints import invalid, reason

SIZES = (1, 8, 64, 224)
SEED = 20261124
MAX_INPUT_ELEMENTS = 64 * 1024**2

_DTYPES = {
    "BOOL": "bool", "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8",
    "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "FP16": "float16", "FP32": "float32",
    "FP64": "float64",
}  # fmt: skip


@dataclass(kw_only=True)
class Run:
    """`size` is what free dimensions beyond the batch were set to; None where no size worked."""

    size: int | None = None
    seconds: float = 0.0
    batches: bool = True
    findings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "findings"}


def session(path: Path) -> Any:
    """Raises Unprocessable `invalid_onnx` or `unsupported_operator` with ONNX Runtime's reason."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except pybind.NotImplemented as error:
        raise Unprocessable(
            "unsupported_operator", "The model uses an operator that nothing here can run.", reason(error)
        ) from error
    except Exception as error:  # ONNX Runtime raises many unrelated types
        raise invalid(error) from error


def run(opened: Any, signature: Mapping[str, Any]) -> Run:
    """Raises Unprocessable `cannot_run` for a model that fails on its own shapes, unless it may be for the values:
    whole numbers and texts can be a step, a divisor, a size."""
    free = any(isinstance(size, str) for port in signature["inputs"] for size in port["shape"])
    why = ""
    tried: list[int] = []
    for size in SIZES if free else SIZES[:1]:
        if tried and _largest_input(signature, size=size) > MAX_INPUT_ELEMENTS:
            break
        tried.append(size)
        began = time.perf_counter()
        why = _try(opened, signature, batch=1, size=size)
        if not why:
            batches = signature["batch_axis"] != 0 or _batches(opened, signature, size)
            return Run(size=size, seconds=time.perf_counter() - began, batches=batches)
    if free:
        return Run(
            findings=[f"It could not be run with free dimensions of {', '.join(map(str, tried))}: {why}"]
        )
    if all(port["dtype"].startswith("FP") for port in signature["inputs"]):
        raise Unprocessable("cannot_run", "The model fails when it is run.", why)
    return Run(findings=[f"It could not be run with values that were made up: {why}"])


def _shape(port: Mapping[str, Any], signature: Mapping[str, Any], *, batch: int, size: int) -> list[int]:
    shape = [each if isinstance(each, int) else size for each in port["shape"]]
    return [batch, *shape[1:]] if signature["batch_axis"] == 0 else shape


def _largest_input(signature: Mapping[str, Any], *, size: int) -> int:
    """Elements of a batch of one. A model with many free dimensions is not refused for a size that is our choice."""
    return max(math.prod(_shape(port, signature, batch=1, size=size)) for port in signature["inputs"])


def _try(opened: Any, signature: Mapping[str, Any], *, batch: int, size: int) -> str:
    """Returns why it failed, empty if it ran."""
    try:
        _answer(opened, signature, batch=batch, size=size)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises many unrelated types
        return reason(error)
    return ""


def _answer(opened: Any, signature: Mapping[str, Any], *, batch: int, size: int) -> list[Any]:
    random = np.random.default_rng(SEED)
    feed = {}
    for port in signature["inputs"]:
        shape = _shape(port, signature, batch=batch, size=size)
        feed[port["name"]] = _values(random, port["dtype"], shape)
    answers = opened.run(None, feed)
    return list(answers)


def _values(random: np.random.Generator, dtype: str, shape: Sequence[int]) -> np.ndarray[Any, Any]:
    """Floats in [0, 1), whole numbers 0 and 1, because they are often positions in a table."""
    if math.prod(shape) > MAX_INPUT_ELEMENTS:
        raise MemoryError
    if dtype == "BYTES":
        return np.full(shape, "a", dtype=object)
    if dtype.startswith("FP"):
        return random.random(shape, dtype=np.float32).astype(_DTYPES[dtype])
    return random.integers(0, 2, size=shape).astype(_DTYPES[dtype])


def _batches(opened: Any, signature: Mapping[str, Any], size: int) -> bool:
    try:
        answers = _answer(opened, signature, batch=2, size=size)
    except Exception as error:  # noqa: BLE001 - whatever the reason, it does not batch
        return not reason(error)
    return all(np.ndim(answer) > 0 and np.shape(answer)[0] == 2 for answer in answers)
