"""What a PyTorch program takes and gives, from its JSON (cleaned by `torch_program`), in the words of `signature`.

A program does not keep the names that its author gave to free dimensions: the first one is called “batch” where all
inputs and outputs share it, others keep PyTorch's symbol. Outputs are named by the keys of the dict that the model
returns, else `output`, `output_1`, ...
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controlplane.registry.intake.signature import MAX_PORTS, unsupported
from controlplane.registry.intake.tensors import dense_bytes, parameter_totals, quoted
from controlplane.registry.intake.torch_program import as_described, keys_of

_ONNX_TYPES = {1: 2, 2: 3, 3: 5, 4: 6, 5: 7, 6: 10, 7: 1, 8: 11, 12: 9, 13: 16, 28: 4, 34: 12, 35: 13}
"""Number of onnx.TensorProto.DataType by number of ScalarType."""
_DTYPES = {
    1: "UINT8", 2: "INT8", 3: "INT16", 4: "INT32", 5: "INT64", 6: "FP16", 7: "FP32", 8: "FP64", 12: "BOOL",
    28: "UINT16", 34: "UINT32", 35: "UINT64",
}  # fmt: skip
_SYMBOL = re.compile(r"Symbol\('(\w+)'[^()]*\)")


def read(program: Mapping[str, Any]) -> dict[str, Any]:
    """Raises Unprocessable `unsupported_signature` or `bad_program`."""
    with as_described("its signature"):
        return _read(program["graph_module"])


def _read(module: Mapping[str, Any]) -> dict[str, Any]:
    values, specs = module["graph"]["tensor_values"], module["signature"]
    for spec in specs["output_specs"]:
        kind = next(iter(spec))
        if kind != "user_output":
            raise unsupported(
                f"It changes its own state when it runs ({kind.replace('_', ' ')}). Export the model in eval mode."
            )
    taken = [spec for spec in specs["input_specs"] if "user_input" in spec]
    inputs = [_tensor_of(spec["user_input"]["arg"], "input") for spec in taken]
    outputs = [_tensor_of(spec["user_output"]["arg"], "output") for spec in specs["output_specs"]]
    if not inputs or not outputs or len(inputs) + len(outputs) > MAX_PORTS:
        raise unsupported(f"It has {len(inputs)} inputs and {len(outputs)} outputs.")
    root = next(entry for entry in module["module_call_graph"] if entry["fqn"] == "")
    named = output_names(keys_of(root["signature"]["out_spec"]), taken=inputs)
    shapes = {name: _shape(values[name]) for name in {*inputs, *outputs}}
    batch = _batch([shapes[name] for name in (*inputs, *outputs)])
    dims = _Dimensions(batch)
    return {
        "inputs": [_port(name, values[name], dims(shapes[name])) for name in inputs],
        "outputs": [
            _port(shown, values[name], dims(shapes[name])) for shown, name in zip(named, outputs, strict=True)
        ],
        "batch_axis": 0 if batch else None,
    }


def _tensor_of(argument: Mapping[str, Any], what: str) -> str:
    if "as_tensor" not in argument:
        kind = next(iter(argument)).removeprefix("as_").replace("_", " ")
        raise unsupported(f"An {what} of it is a {kind}, not a tensor. Export the model with tensors only.")
    return str(argument["as_tensor"]["name"])


def output_names(keys: Sequence[str], *, taken: Iterable[str]) -> list[str]:
    """A name for each output that no other port has; `keys` as `keys_of` gives them."""
    used = set(taken)
    names = []
    for index, key in enumerate(keys):
        name = key or ("output" if len(keys) == 1 else f"output_{index}")
        while name in used:
            name = f"{name}_out"
        used.add(name)
        names.append(name)
    return names


def _shape(meta: Mapping[str, Any]) -> list[int | str]:
    """Sizes; a symbol by its name, what is computed from symbols as the empty text."""
    sizes: list[int | str] = []
    for size in meta["sizes"]:
        if "as_int" in size:
            sizes.append(int(size["as_int"]))
        else:
            symbol = _SYMBOL.fullmatch(size["as_expr"]["expr_str"])
            sizes.append(symbol[1] if symbol else "")
    return sizes


def _batch(shapes: Sequence[Sequence[int | str]]) -> str:
    first = {shape[0] if shape else 0 for shape in shapes}
    only = first.pop() if len(first) == 1 else ""
    return only if isinstance(only, str) else ""


class _Dimensions:
    def __init__(self, batch: str) -> None:
        self._batch = batch
        self._unnamed = 0

    def __call__(self, shape: Sequence[int | str]) -> list[int | str]:
        return [self._named(size) for size in shape]

    def _named(self, size: int | str) -> int | str:
        if size == "":
            self._unnamed += 1
            return f"?{self._unnamed - 1}"
        return "batch" if size == self._batch else size


def _port(name: str, meta: Mapping[str, Any], shape: list[int | str]) -> dict[str, Any]:
    dtype = _DTYPES.get(meta["dtype"])
    if dtype is None:
        raise unsupported(f"{quoted(name)} has an element type that cannot be served.")
    if any(isinstance(size, int) and not 0 < size < 2**31 for size in shape):
        raise unsupported(f"{quoted(name)} has an impossible dimension in {shape}.")
    return {"name": name, "dtype": dtype, "shape": shape}


def summary(program: Mapping[str, Any], tensors: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """`tensors`: number of the element type and count of elements. Raises Unprocessable `bad_program`."""
    with as_described("its graph"):
        return _summary(program, tensors)


def _summary(program: Mapping[str, Any], tensors: Iterable[tuple[int, int]]) -> dict[str, Any]:
    nodes = program["graph_module"]["graph"]["nodes"]
    operators = Counter(str(node["target"]).removeprefix("torch.ops.").split(".")[1] for node in nodes)
    sizes: Counter[int] = Counter()
    count = 0
    for dtype, elements in tensors:
        count += elements
        if dtype in _ONNX_TYPES:
            sizes[_ONNX_TYPES[dtype]] += dense_bytes(_ONNX_TYPES[dtype], elements)
    totals = parameter_totals(sizes)
    floats = {name: totals.get(name, 0) for name in ("FP32", "FP16", "BF16", "FP64")}
    most = max(floats, key=lambda name: floats[name])
    return {
        "opset": {},
        "producer": f"PyTorch {program.get('torch_version', '')}".strip()[:100],
        "nodes": len(nodes),
        "operators": [[name, number] for name, number in operators.most_common(10)],
        "parameters": count,
        "parameter_bytes": totals,
        "precision": most.lower() if floats[most] else "fp32",
        "findings": _bounds(program),
    }


def _bounds(program: Mapping[str, Any]) -> list[str]:
    """What its author promised about free dimensions, which a signature has no place for."""
    return [
        f"The free dimension {name} was exported for sizes up to {row['max_val']:,}."
        for name, row in program.get("range_constraints", {}).items()
        if isinstance(row, dict) and isinstance(row.get("max_val"), int) and row["max_val"] < 2**31
    ]
