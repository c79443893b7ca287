"""The model itself, opened by the runtime of its format and warmed up before anyone is served.

Refused: going ready on a model that has never run, whose first clients would pay for memory
planning and page faults, or find out that it cannot run a batch at all.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deployments.stacks.fastapi.config import Signature, Tensor
from deployments.stacks.fastapi.runtimes import OpenModel
from deployments.stacks.fastapi.tensors import DTYPES, Array


class CannotServe(Exception):
    """The model cannot be served as configured. The text is for the person who rolls it out."""


class Engine:
    """Opens the model at `path`. Raises CannotServe."""

    def __init__(self, *, open_model: OpenModel, path: Path, signature: Signature, threads: int) -> None:
        try:
            self._model = open_model(path, threads)
        except Exception as error:
            raise CannotServe(f"The model cannot be opened: {error}") from error
        self._signature = signature
        self._outputs = [spec.name for spec in signature.outputs]
        self._check_names()

    def _check_names(self) -> None:
        theirs, gives = self._model.inputs, self._model.outputs
        ours = {spec.name for spec in self._signature.inputs}
        if theirs != ours or not gives.issuperset(self._outputs):
            raise CannotServe(
                f"The model takes {sorted(theirs)} and gives {sorted(gives)}, "
                f"its signature says {sorted(ours)} and {sorted(self._outputs)}."
            )

    def run(self, feeds: dict[str, Array]) -> Sequence[Array]:
        """Outputs in the order of the signature. Raises whatever the runtime raises."""
        return self._model.run(self._outputs, feeds)

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
