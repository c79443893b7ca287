"""A `.pt2` as `torch.export.save` writes it, by hand: the web's tests have no PyTorch."""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

BATCH = {"as_expr": {"expr_str": "Symbol('s0', positive=True, integer=True)", "hint": {"as_int": 2}}}
WEIGHTS = np.asarray([1.5, -2.0, 0.25], np.float32)
LEAF = {"type": None, "context": None, "children_spec": []}

type Change = Callable[[dict[str, Any]], None]


def meta(*sizes: Any) -> dict[str, Any]:
    return {
        "dtype": 7,
        "sizes": [size if isinstance(size, dict) else {"as_int": size} for size in sizes],
        "requires_grad": False,
        "device": {"type": "cpu", "index": None},
        "strides": [{"as_int": 3}, {"as_int": 1}][-len(sizes) :],
        "storage_offset": {"as_int": 0},
        "layout": 7,
    }


def tensor(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}


def tree(*keys: str) -> str:
    """A dict of tensors as PyTorch writes its nesting."""
    node = {"type": "builtins.dict", "context": json.dumps(keys), "children_spec": [LEAF] * len(keys)}
    return json.dumps([1, node])


def node(target: str, output: str, **inputs: Any) -> dict[str, Any]:
    return {
        "target": target,
        "inputs": [{"name": name, "arg": argument, "kind": 1} for name, argument in inputs.items()],
        "outputs": [tensor(output)],
        "metadata": {"stack_trace": 'File "/home/somebody/train.py", line 1'},
        "is_hop_single_tensor_return": None,
        "name": output,
    }


def model() -> dict[str, Any]:
    """relu(x + w) with a free batch, as {"score": ...}."""
    arguments = {"type": "builtins.tuple", "context": "null", "children_spec": [LEAF]}
    nothing = {"type": "builtins.dict", "context": "[]", "children_spec": []}
    both = {"type": "builtins.tuple", "context": "null", "children_spec": [arguments, nothing]}
    return {
        "graph_module": {
            "graph": {
                "inputs": [tensor("p_w"), tensor("x")],
                "outputs": [tensor("relu")],
                "nodes": [
                    node("torch.ops.aten.add.Tensor", "add", self=tensor("x"), other=tensor("p_w")),
                    node("torch.ops.aten.relu.default", "relu", self=tensor("add")),
                ],
                "tensor_values": {
                    "p_w": meta(3),
                    **{name: meta(BATCH, 3) for name in ("x", "add", "relu")},
                },
                "sym_int_values": {},
                "sym_bool_values": {},
                "is_single_tensor_return": False,
                "custom_obj_values": {},
                "sym_float_values": {},
            },
            "signature": {
                "input_specs": [
                    {"parameter": {"arg": {"name": "p_w"}, "parameter_name": "w"}},
                    {"user_input": {"arg": tensor("x")}},
                ],
                "output_specs": [{"user_output": {"arg": tensor("relu")}}],
            },
            "module_call_graph": [
                {
                    "fqn": "",
                    "signature": {
                        "inputs": [],
                        "outputs": [],
                        "in_spec": json.dumps([1, both]),
                        "out_spec": tree("score"),
                        "forward_arg_names": ["x"],
                    },
                }
            ],
            "metadata": {},
            "treespec_namedtuple_fields": {},
        },
        "opset_version": {"aten": 10},
        "range_constraints": {"s0": {"min_val": 1, "max_val": 64}},
        "schema_version": {"major": 8, "minor": 20},
        "verifiers": ["TRAINING"],
        "torch_version": "2.15.0",
        "guards_code": [],
    }


def weights() -> dict[str, Any]:
    return {
        "config": {
            "w": {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": meta(3)}
        }
    }


def program(
    change: Change = lambda model: None,
    *,
    change_weights: Change = lambda weights: None,
    members: Mapping[str, bytes | None] | None = None,
) -> bytes:
    """`members` are added, replaced, or left out where None."""
    graph, config = model(), weights()
    change(graph)
    change_weights(config)
    files: dict[str, bytes | None] = {
        "models/model.json": json.dumps(graph).encode(),
        "data/weights/model_weights_config.json": json.dumps(config).encode(),
        "data/weights/weight_0": WEIGHTS.tobytes(),
        "data/constants/model_constants_config.json": b'{"config": {}}',
        "data/sample_inputs/model.pt": b"",
        "archive_format": b"pt2",
        "archive_version": b"0",
        "byteorder": b"little",
        ".data/version": b"6\n",
        ".data/serialization_id": b"1234",
        **(members or {}),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, body in files.items():
            if body is not None:
                archive.writestr(f"score/{name}", body)
    return out.getvalue()


def pickle_that_writes(path: str) -> bytes:
    """Unpickled, it runs `open(path, "w")`: harmless, and seen."""
    import pickle

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (path, "w")

    return pickle.dumps(Payload())


def size_that_writes(path: str) -> Change:
    """PyTorch evaluates symbolic sizes with sympy, which calls Python's `eval`."""

    def change(graph: dict[str, Any]) -> None:
        graph["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0] = {
            "as_expr": {
                "expr_str": f"Symbol(str(open('{path}', 'w').close() or 's0'), positive=True, integer=True)"
            }
        }

    return change


def target_that_loads(graph: dict[str, Any]) -> None:
    """Targets are looked up from the `torch` module by name."""
    graph["graph_module"]["graph"]["nodes"][0]["target"] = "torch.hub.load"
