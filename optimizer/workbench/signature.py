"""A model's inputs and outputs as values, and what a concrete array for them looks like.

The JSON is the registry's (Open Inference Protocol names, symbolic dimensions as strings). Read here again
because this code runs in a child process that has no Django.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from controlplane.core.errors import Unprocessable

type Array = NDArray[Any]
type Feed = dict[str, Array]

NUMPY_DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """Raises Unprocessable("unsupported_dtype") for a type no array here can carry."""
        if self.dtype not in NUMPY_DTYPES:
            raise Unprocessable(
                "unsupported_dtype",
                f"Tensors of type {self.dtype} cannot be evaluated.",
                f"Input or output “{self.name}” has it.",
            )
        return NUMPY_DTYPES[self.dtype]


@dataclass(frozen=True, kw_only=True)
class Signature:
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(
            inputs=_specs(value["inputs"]),
            outputs=_specs(value["outputs"]),
            batched=value.get("batch_axis") == 0,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": [asdict(spec) for spec in self.inputs],
            "outputs": [asdict(spec) for spec in self.outputs],
            "batch_axis": 0 if self.batched else None,
        }


def _specs(values: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=spec["name"], dtype=spec["dtype"], shape=tuple(spec["shape"])) for spec in values
    )
