"""The model itself: an ONNX Runtime session, warmed up before anyone is served.

ONNX Runtime is imported here, when the session is opened, so the port answers before the library is read.
Session options are the runtime's defaults except for the number of threads: what the optimizer measured is
what is served. Refused: going ready on a model that has never run, whose first clients would pay for memory
planning and page faults, or find out that it cannot run a batch at all.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deployments.stacks.fastapi.config import Signature, Tensor
from deployments.stacks.fastapi.tensors import DTYPES, Array

_FATAL = 4


class CannotServe(Exception):
    """The model cannot be served as configured. The text is for the person who rolls it out."""


class Engine:
    """Opens the model at `path`. Raises CannotServe."""

    def __init__(self, *, path: Path, signature: Signature, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Only what kills the process: errors come back as exceptions, and stderr carries one JSON object a line.
        options.log_severity_level = _FATAL
        onnxruntime.set_default_logger_severity(_FATAL)
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise CannotServe(f"The model cannot be opened: {error}") from error
        self._signature = signature
        self._outputs = [spec.name for spec in signature.outputs]
        self._check_names()

    def _check_names(self) -> None:
        theirs = {one.name for one in self._session.get_inputs()}
        ours = {spec.name for spec in self._signature.inputs}
        gives = {one.name for one in self._session.get_outputs()}
        if theirs != ours or not gives.issuperset(self._outputs):
            raise CannotServe(
                f"The model takes {sorted(theirs)} and gives {sorted(gives)}, "
                f"its signature says {sorted(ours)} and {sorted(self._outputs)}."
            )

    def run(self, feeds: dict[str, Array]) -> Sequence[Array]:
        """Outputs in the order of the signature. Raises whatever the runtime raises."""
        outputs: Sequence[Array] = self._session.run(self._outputs, feeds)
        return outputs

    def warm_up(self, *, max_batch_size: int) -> dict[int, float]:
        """Runs zeros in the smallest and the largest batch; seconds by batch size.

        Raises CannotServe where the model fails, or where its outputs do not have one row per input row. A
        model with free dimensions besides the batch may rightly refuse the sizes made up here, so there a
        failure proves nothing and an empty dict is returned.
        """
        batched = self._signature.batch_axis == 0
        guessing = any(
            isinstance(size, str)
            for spec in self._signature.inputs
            for size in (spec.shape[1:] if batched else spec.shape)
        )
        taken: dict[int, float] = {}
        for rows in sorted({1, max_batch_size if batched else 1}):
            feeds = {spec.name: _zeros(spec, rows if batched else None) for spec in self._signature.inputs}
            started = time.perf_counter()
            try:
                outputs = self.run(feeds)
            except Exception as error:
                if guessing:
                    return {}
                raise CannotServe(
                    f"The model fails on {_rows(rows)} of zeros: {error}{_advice(rows)}"
                ) from error
            taken[rows] = time.perf_counter() - started
            if batched and max_batch_size > 1:
                self._check_rows(outputs, rows)
        return taken

    def _check_rows(self, outputs: Sequence[Array], rows: int) -> None:
        for name, array in zip(self._outputs, outputs, strict=True):
            if array.ndim == 0 or array.shape[0] != rows:
                raise CannotServe(
                    f"The output {name!r} has shape {list(array.shape)} for {_rows(rows)}: "
                    f"requests cannot be batched.{_advice(2)}"
                )


def _rows(rows: int) -> str:
    return "one row" if rows == 1 else f"{rows} rows"


def _advice(rows: int) -> str:
    return " Set max_batch_size to 1." if rows > 1 else ""


def _zeros(spec: Tensor, rows: int | None) -> Any:
    shape = [1 if isinstance(size, str) else size for size in spec.shape]
    if rows is not None:
        shape[0] = rows
    dtype = DTYPES[spec.dtype]
    return np.full(shape, "", dtype=object) if dtype.kind == "O" else np.zeros(shape, dtype=dtype)
