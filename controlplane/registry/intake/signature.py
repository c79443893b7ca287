"""The signature of a model: what goes in and comes out, in the words of the Open Inference Protocol.

A dimension is an int, or a string where it is free: its name in the model, or `?0`, `?1`, ... where it has
none. `batch_axis` is 0 if the first dimension of every input is free.
"""

from collections.abc import Mapping
from typing import Any

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.tensors import SIGNATURE_TYPES, quoted, type_name

MAX_PORTS = 1000


def read(graph: Any) -> dict[str, Any]:
    """Raises Unprocessable `unsupported_signature` that says which port and what is missing."""
    weights = {tensor.name for tensor in graph.initializer}
    sparse = {tensor.values.name for tensor in graph.sparse_initializer}
    inputs = [port for port in graph.input if port.name not in weights | sparse]
    if not inputs or not graph.output:
        raise unsupported(f"It has {len(inputs)} inputs and {len(graph.output)} outputs; both must be there.")
    if len(inputs) + len(graph.output) > MAX_PORTS:
        raise unsupported(f"It has more than {MAX_PORTS:,} inputs and outputs.")
    names = _Names()
    signature: dict[str, Any] = {
        "inputs": [_port(port, "input", names) for port in inputs],
        "outputs": [_port(port, "output", names) for port in graph.output],
    }
    return signature | {"batch_axis": batch_axis(signature)}


def batch_axis(signature: Mapping[str, Any]) -> int | None:
    shapes = [port["shape"] for port in signature["inputs"]]
    return 0 if all(shape and isinstance(shape[0], str) for shape in shapes) else None


class _Names:
    """Gives `?n` to free dimensions without a name."""

    def __init__(self) -> None:
        self._given = 0

    def next(self) -> str:
        self._given += 1
        return f"?{self._given - 1}"


def _port(port: Any, what: str, names: _Names) -> dict[str, Any]:
    label = f"The {what} {quoted(port.name)}"
    kind = port.type.WhichOneof("value")
    if kind != "tensor_type":
        words = (kind or "nothing").removesuffix("_type").replace("_", " ")
        raise unsupported(
            f"{label} is a {words}, not a tensor. Export the model with tensors only (scikit-learn: zipmap=False)."
        )
    tensor = port.type.tensor_type
    dtype = type_name(tensor.elem_type)
    if dtype not in SIGNATURE_TYPES:
        raise unsupported(
            f"{label} has the element type {dtype or tensor.elem_type}, which cannot be served."
        )
    if not tensor.HasField("shape"):
        raise unsupported(
            f"{label} declares no shape. Export the model with at least its number of dimensions."
        )
    shape = [_dimension(size, label, names) for size in tensor.shape.dim]
    return {"name": port.name, "dtype": dtype, "shape": shape}


def _dimension(size: Any, label: str, names: _Names) -> int | str:
    if size.dim_param:
        return str(size.dim_param)
    if not size.HasField("dim_value") or size.dim_value < 0:
        return names.next()
    if size.dim_value == 0:
        raise unsupported(f"{label} has a dimension of size 0.")
    return int(size.dim_value)


def unsupported(detail: str) -> Unprocessable:
    return Unprocessable("unsupported_signature", "The model's inputs and outputs cannot be served.", detail)
