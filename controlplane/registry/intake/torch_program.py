"""The JSON of a PyTorch program, made safe to be read by PyTorch.

`torch.export.load` evaluates much of it: symbolic sizes go through sympy's `eval`, targets are looked up from the
`torch` module by name (`torch.hub.load` would be found), names become source code, guards are executed. So every
text in it is held against what may stand in its place, and a text in a place that is not known here is refused. What
only people read (stack traces) and what is not needed to compute (guards) is left out. Measured with torch 2.15.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.tensors import quoted

MAX_DEPTH = 64
MAX_TEXT = 2000
_NAME = r"(?:[A-Za-z_][A-Za-z0-9_]*)?"
_DOTTED = r"[A-Za-z0-9_.]{0,500}"
SYMPY = (
    "Abs", "Add", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Equality", "Eq", "FloatPow", "FloatTrueDiv",
    "FloorDiv", "FloorToInt", "GreaterThan", "Identity", "IntTrueDiv", "Integer", "LShift", "LessThan",
    "Max", "Min", "Mod", "ModularIndexing", "Mul", "Ne", "Not", "Or", "Pow", "PowByNatural", "PythonMod",
    "RShift", "Rational", "RoundDecimal", "RoundToInt", "StrictGreaterThan", "StrictLessThan", "ToFloat",
    "TruncToFloat", "TruncToInt", "Unequality", "Where",
)  # fmt: skip
_EXPRESSION = re.compile(
    r"(?:Symbol\('[a-z]{1,8}\d{0,9}'(?:, (?:integer|positive|nonnegative|real)=(?:True|False))*\)"
    rf"|(?:{'|'.join(SYMPY)})\(|\)|, |-?\d{{1,20}}|true|false)+"
)
_TARGET = re.compile(
    r"torch\.ops\.(?:aten|prims)\.(?!(?:from_file|save|load|_print|warn)\b)\w+\.\w+"
    r"|torch\.ops\.higher_order\.(?:cond|while_loop|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|_operator\.(?:add|sub|mul|floordiv|truediv|mod|pow|neg|pos|getitem|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(?:ceil|floor|sqrt|trunc)"
    r"|torch\.(?:sym_(?:int|float|not|max|min|ite|sum|sqrt)|_sym_sqrt)",
    re.ASCII,
)
_TEXTS: Mapping[str, re.Pattern[str]] = {
    "target": _TARGET,
    "as_operator": _TARGET,
    "expr_str": _EXPRESSION,
    "type": re.compile(r"cpu|cuda|mps|xpu|meta"),
    "as_string": re.compile(r"[ -~]*"),
    "as_strings": re.compile(r"[ -~]*"),
    "torch_version": re.compile(r"[\w.+<=-]*", re.ASCII),
    "path_name": re.compile(r"(?:weight|tensor)_\d{1,9}"),
    **dict.fromkeys(
        ("as_float", "as_floats", "as_float_lists", "real", "imag"), re.compile(r"-?Infinity|NaN")
    ),
    **dict.fromkeys(("name", "as_name", "forward_arg_names"), re.compile(_NAME)),
    **dict.fromkeys(
        ("parameter_name", "buffer_name", "tensor_constant_name", "user_input_name", "fqn", "verifiers"),
        re.compile(_DOTTED),
    ),
}
_KEY = re.compile(_DOTTED)
_RANGE = re.compile(r"[A-Za-z0-9_ ()+*/-]{1,200}")
"""Such as `2*s0`: looked up, never evaluated."""
_CUSTOM = frozenset({"as_custom_obj", "custom_obj", "custom_obj_values"})
_SPECS = frozenset({"in_spec", "out_spec"})
_MAPS = frozenset(
    {
        *("tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values"),
        *("range_constraints", "config", "as_string_to_argument"),
    }
)
"""What maps names that the author chose: one of them may be “metadata”."""
_CONTAINERS = frozenset({"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})


def parsed(data: bytes, *, what: str) -> dict[str, Any]:
    """The object in a JSON member with only texts that may stand there. Raises Unprocessable `unsafe_format`,
    `bad_program`."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise bad_program(f"{what} is not JSON") from error
    if not isinstance(value, dict):
        raise bad_program(f"{what} is not an object")
    return _object(value, "", MAX_DEPTH)


def _clean(value: Any, key: str, depth: int) -> Any:
    if depth <= 0:
        raise bad_program(f"it is nested more than {MAX_DEPTH} deep")
    match value:
        case str():
            return _tree(value) if key in _SPECS else _text(value, key)
        case dict():
            return _object(value, key, depth - 1)
        case list():
            return [_clean(each, key, depth - 1) for each in value]
    return value


def _object(value: dict[str, Any], key: str, depth: int) -> dict[str, Any]:
    if key == "metadata":
        return {}
    if key in {"device", "as_device"} and value.keys() == {"type", "index"}:
        return {"type": _on_cpu(_text(value["type"], "type")), "index": None}
    cleaned = {}
    for name, inner in value.items():
        if not (_RANGE if key == "range_constraints" else _KEY).fullmatch(name):
            raise unsafe(f"The name {quoted(name)} could be read as code")
        if key in _MAPS:
            cleaned[name] = _clean(inner, "", depth)
            continue
        if name in _CUSTOM and inner:
            raise unsafe("It holds a custom object, which is stored as a pickle")
        if name == "use_pickle" and inner is not False:
            raise unsafe("It stores tensors as pickles (use_pickle)")
        if name == "treespec_namedtuple_fields" and inner:
            raise bad_program("it takes or gives named tuples. Return a tensor, a tuple or a dict of tensors")
        cleaned[name] = [] if name == "guards_code" else _clean(inner, name, depth)
    return cleaned


def _on_cpu(device: str) -> str:
    """What was exported on an accelerator computes the same here; only `meta` has no values to move."""
    return device if device == "meta" else "cpu"


def _text(value: Any, key: str) -> str:
    pattern = _TEXTS.get(key)
    if pattern is None:
        raise unsafe(f"It has a text where none is expected, in {quoted(key)}")
    if not isinstance(value, str) or len(value) > MAX_TEXT or not pattern.fullmatch(value):
        shown = str(value)[:80].encode("unicode_escape").decode()
        if key in {"target", "as_operator"}:
            raise unsafe(f"It calls {quoted(shown)}; only ATen operators and arithmetic are accepted")
        raise unsafe(f"Its {key} {quoted(shown)} could be read as code")
    return value


def _tree(text: str) -> str:
    """How inputs or outputs are nested. Classes of transformers are dicts of tensors, and become that."""
    try:
        version, root = json.loads(text)
        if version != 1:
            raise ValueError
        return json.dumps([1, _branch(root, MAX_DEPTH)])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise bad_program("it does not say how its inputs and outputs are nested") from error


def _branch(node: Mapping[str, Any], depth: int) -> dict[str, Any]:
    if depth <= 0:
        raise ValueError
    children = [_branch(child, depth - 1) for child in node["children_spec"]]
    kind, context = node["type"], node["context"]
    if kind is None:
        return {"type": None, "context": None, "children_spec": []}
    if str(kind).startswith("transformers."):
        kind = "builtins.dict"
    if kind not in _CONTAINERS:
        raise bad_program(
            f"it takes or gives objects of the class {quoted(str(kind)[:80])}. Return a tensor, a tuple or a dict"
        )
    names = json.loads(context)
    if names is not None and not (
        isinstance(names, list) and all(isinstance(name, str) and _KEY.fullmatch(name) for name in names)
    ):
        raise ValueError
    return {"type": kind, "context": json.dumps(names), "children_spec": children}


def keys_of(tree: str) -> list[str]:
    """A name for every leaf of a cleaned tree: its keys joined, empty where it has none."""

    def leaves(node: Mapping[str, Any], at: str) -> list[str]:
        if node["type"] is None:
            return [at]
        names = json.loads(node["context"]) or [""] * len(node["children_spec"])
        return [
            name
            for key, child in zip(names, node["children_spec"], strict=True)
            for name in leaves(child, "_".join(filter(None, (at, str(key)))))
        ]

    return leaves(json.loads(tree)[1], "")


@contextmanager
def as_described(what: str) -> Iterator[None]:
    """Around what reads the JSON as PyTorch writes it: where it is written otherwise, `bad_program`."""
    try:
        yield
    except (
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        ValueError,
        StopIteration,
        OverflowError,
    ) as error:
        raise bad_program(f"{what} is not written as PyTorch writes it ({type(error).__name__})") from error


def unsafe(why: str) -> Unprocessable:
    return Unprocessable(
        "unsafe_format",
        "This PyTorch program could run code when it is loaded, so it is not opened.",
        f"{why}. Save it again with torch.export.save, with plain tensors only, or upload ONNX.",
    )


def bad_program(why: str) -> Unprocessable:
    return Unprocessable(
        "bad_program",
        "This PyTorch program cannot be used.",
        f"{why[0].upper()}{why[1:]}. Export it again with torch.export of a current PyTorch.",
    )
