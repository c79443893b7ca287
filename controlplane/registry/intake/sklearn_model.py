"""A scikit-learn model as skops writes it: a zip of a `schema.json` that names every object, and of NumPy arrays.

Nothing is opened here, and scikit-learn is not needed. What the schema may name is an allow-list: estimators and other
objects of scikit-learn, arrays and plain values. Whatever names a function, or is rebuilt by calling one, is refused;
skops itself looks once more when a job opens the file in its sandbox. Refused: pickle and joblib, which run code.
"""

import ast
import json
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.archive import Member, unsafe
from controlplane.registry.intake.recognize import UNSAFE
from controlplane.registry.intake.signature import unsupported
from controlplane.registry.intake.tensors import quoted
from controlplane.registry.intake.torch_archive import LONG_AGO, unbroken

SCHEMA = "schema.json"
MAX_SCHEMA_BYTES = 64 * 1024**2
MAX_CLASSES, MAX_FEATURES = 100_000, 10_000_000
INPUT, LABEL, PROBABILITIES, VARIABLE = "input", "label", "probabilities", "variable"
"""As skl2onnx names the outputs."""
_ARRAY = re.compile(r"\d{1,20}\.np[yz]")
_CHUNK = 1024**2
_VALUES = frozenset(
    {
        "DictNode", "DefaultDictNode", "ListNode", "SetNode", "TupleNode", "BytesNode", "BytearrayNode", "SliceNode",
        "JsonNode", "TypeNode", "NdArrayNode", "MaskedArrayNode", "DTypeNode", "RandomStateNode", "RandomGeneratorNode",
        "SparseMatrixNode",
    }
)  # fmt: skip
_OBJECTS = frozenset({"ObjectNode", "TreeNode", "LossNode"})
_PLAIN = re.compile(r"builtins|collections|numpy(\.[a-z_.]+)?|scipy\.sparse(\.[a-z_]+)?", re.ASCII)
_OWN = re.compile(
    r"sklearn\.(?:_loss|calibration|compose|cross_decomposition|decomposition|discriminant_analysis|dummy|ensemble"
    r"|feature_selection|frozen|gaussian_process|impute|isotonic|kernel_approximation|kernel_ridge|linear_model"
    r"|metrics\._dist_metrics|multiclass|multioutput|naive_bayes|neighbors|neural_network|pipeline|preprocessing"
    r"|random_projection|svm|tree|utils\._bunch)(?:\.[a-z_]+)*",
    re.ASCII,
)
_SCORES = re.compile(
    r"sklearn\.feature_selection\._(?:univariate_selection\.(?:chi2|f_classif|f_oneway|f_regression|r_regression)"
    r"|mutual_info\.mutual_info_(?:classif|regression))"
)
"""Functions by which features were chosen: named in a fitted model, and not called by it."""
_NO_PROBABILITIES = frozenset(
    {"LinearSVC", "Perceptron", "RidgeClassifier", "RidgeClassifierCV", "NearestCentroid"}
)
_REGRESSORS = re.compile(
    r".*(?:Regressor|Regression|RegressorCV|SVR|Ridge|RidgeCV|Lasso|LassoCV|LassoIC|ElasticNet|ElasticNetCV|Lars|LarsCV"
    r"|LassoLars|LassoLarsCV|LassoLarsIC|KernelRidge|OrthogonalMatchingPursuit|OrthogonalMatchingPursuitCV)"
)

type Node = Mapping[str, Any]


def is_model(names: Sequence[str]) -> bool:
    return SCHEMA in names and all(name == SCHEMA or _ARRAY.fullmatch(name) for name in names)


def inspect(archive: zipfile.ZipFile, members: Sequence[Member], target: Path) -> dict[str, Any]:
    """Writes the arrays that the schema names, and it, to `target`; returns `signature` and `summary`. Raises
    Unprocessable: `unsafe_format`, `bad_sklearn`, `unsupported_signature`, `unsafe_archive`, `broken_archive`."""
    files = {member.name: member for member in members}
    text = _read(archive, files[SCHEMA], most=MAX_SCHEMA_BYTES)
    schema = _parsed(text)
    nodes = list(_nodes(schema))
    for node in nodes:
        _refuse_code(node)
    arrays = sorted({_file(node) for node in nodes if "file" in node})
    if missing := next((name for name in arrays if name not in files), ""):
        raise _bad(f"its {SCHEMA} names {quoted(missing)}, which is not in the archive")
    if len(files) > len(arrays) + 1:
        raise unsafe(f"It has {len(files) - len(arrays) - 1} members that its {SCHEMA} does not name")
    found = _signature(schema, lambda name: _array_head(archive, files[name]))
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as out:
        out.writestr(zipfile.ZipInfo(SCHEMA, LONG_AGO), text)
        for name in arrays:
            with (
                unbroken(files[name]),
                archive.open(files[name].info) as source,
                out.open(zipfile.ZipInfo(name, LONG_AGO), "w", force_zip64=True) as file,
            ):
                while chunk := source.read(_CHUNK):
                    file.write(chunk)
    return {"signature": found, "summary": _summary(schema, size_bytes=target.stat().st_size)}


def _read(archive: zipfile.ZipFile, member: Member, *, most: int) -> bytes:
    if member.size_bytes > most:
        raise _bad(f"its {quoted(member.name)} has more than {most:,} bytes")
    with unbroken(member), archive.open(member.info) as source:
        return source.read(most)


def _parsed(text: bytes) -> Node:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(f"its {SCHEMA} is not JSON") from error
    if not isinstance(schema, dict) or "__loader__" not in schema:
        raise _bad(f"its {SCHEMA} describes no object")
    return schema


def _nodes(schema: Node) -> Iterator[Node]:
    """Every object that the schema describes, without recursion."""
    waiting: list[Any] = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "__loader__" in value or "__class__" in value or "__module__" in value:
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _refuse_code(node: Node) -> None:
    loader, module, name = (node.get(key) for key in ("__loader__", "__module__", "__class__"))
    if not (isinstance(module, str) and isinstance(name, str)):
        raise _bad(f"its {SCHEMA} has an object without a class")
    plain, own = _PLAIN.fullmatch(module), _OWN.fullmatch(module)
    if (loader in _VALUES and (plain or own)) or (loader in _OBJECTS and own):
        return
    if loader == "FunctionNode" and _SCORES.fullmatch(f"{module}.{name}"):
        return
    if loader in _OBJECTS and module.startswith("sklearn."):
        raise unsupported(
            f"It has a {quoted(name[:60])}: classifiers and regressors of scikit-learn are taken, and what prepares "
            "their features. Of a search, save its best_estimator_."
        )
    raise Unprocessable(
        "unsafe_format",
        UNSAFE,
        f"Its {SCHEMA} names {quoted(f'{module}.{name}'[:120])}, and only arrays, plain values and objects of "
        "scikit-learn's estimators are taken. Leave functions and classes of other packages out of the model (of a "
        "search, save its best_estimator_), or export it to ONNX with skl2onnx.",
    )


def _file(node: Node) -> str:
    name = node["file"]
    if not isinstance(name, str) or _ARRAY.fullmatch(name) is None:
        raise _bad(f"its {SCHEMA} names a file that is no array")
    return name


# What it takes and gives


def _attributes(node: Node) -> Node:
    """Of an object, by name."""
    content = node.get("content")
    inner = content.get("content") if isinstance(content, dict) else None
    return inner if isinstance(inner, dict) else {}


def _plain(node: Any) -> Any:
    """The value of a number, a text or a flag; None for anything else."""
    if not isinstance(node, dict) or node.get("__loader__") != "JsonNode":
        return None
    try:
        return json.loads(node["content"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _steps(schema: Node) -> list[Node]:
    """The objects of a pipeline in their order; the object itself where it is none."""
    steps = _attributes(schema).get("steps")
    if schema.get("__class__") != "Pipeline" or not isinstance(steps, dict):
        return [schema]
    try:
        found = [row["content"][1] for row in steps["content"]]
    except (KeyError, IndexError, TypeError) as error:
        raise _bad("it is a pipeline without steps") from error
    objects: list[Node] = [
        each for each in found if isinstance(each, dict) and each.get("__loader__") in _OBJECTS
    ]
    if not objects:
        raise _bad("it is a pipeline without steps")
    return objects


def _signature(schema: Node, head: Any) -> dict[str, Any]:
    steps = _steps(schema)
    features = next((found for each in steps if (found := _features(each)) is not None), None)
    if features is None:
        raise unsupported(
            "It was not fitted: it does not say how many features it takes. Fit it, and save it again."
        )
    last = _attributes(steps[-1])
    return {
        "inputs": [_port(INPUT, "FP32", features)],
        "outputs": _outputs(steps[-1], last, head),
        "batch_axis": 0,
    }


def _features(node: Node) -> int | None:
    """As it says, or as the first of those says that it is made of."""
    attributes = _attributes(node)
    count = _plain(attributes.get("n_features_in_"))
    if type(count) is int and 0 < count <= MAX_FEATURES:
        return count
    fitted = attributes.get("estimators_")
    rows = fitted.get("content") if isinstance(fitted, dict) else None
    inner = [*rows[:1]] if isinstance(rows, list) else [attributes.get("regressor_")]
    return next((found for each in inner if isinstance(each, dict) and (found := _features(each))), None)


def _outputs(last: Node, attributes: Node, head: Any) -> list[dict[str, Any]]:
    name = str(last["__class__"])
    if "classes_" in attributes:
        if name in _NO_PROBABILITIES or _plain(attributes.get("probability")) is False:
            raise unsupported(
                f"{name} gives no probabilities. Fit it with them (probability=True, or inside of a "
                "CalibratedClassifierCV), and save it again."
            )
        return _classes(attributes["classes_"], head)
    if _REGRESSORS.fullmatch(name) or name == "TransformedTargetRegressor":
        return [_port(VARIABLE, "FP32", _targets(name, attributes, head))]
    raise unsupported(
        f"It ends in {quoted(name[:60])}: classifiers and regressors of scikit-learn are taken."
    )


def _targets(name: str, attributes: Node, head: Any) -> int:
    """How many numbers a regressor answers for each item, by its coefficients, neighbours or estimators."""
    count, fitted = _plain(attributes.get("n_outputs_")) or 1, attributes.get("estimators_")
    for kept, axis in (("coef_", 0), ("_y", 1)):
        array = attributes.get(kept)
        if isinstance(array, dict) and array.get("type") == "numpy":
            _, shape = head(_file(array))
            return _few(shape[axis]) if len(shape) == 2 else 1
    if (
        name == "MultiOutputRegressor"
        and isinstance(fitted, dict)
        and isinstance(fitted.get("content"), list)
    ):
        return _few(len(fitted["content"]))
    if count != 1:  # skl2onnx writes trees and networks of several as if of one
        raise unsupported("It answers several numbers for each item. Save a model for each of them.")
    return 1


def _few(count: int) -> int:
    if 0 < count <= MAX_CLASSES:
        return count
    raise unsupported(f"It answers {count:,} numbers for each item; 1 to {MAX_CLASSES:,} are taken.")


def _classes(node: Any, head: Any) -> list[dict[str, Any]]:
    """With whole numbers for classes the label is one of them; other labels stay with whoever reads the answer."""
    if isinstance(node, dict) and node.get("__loader__") == "NdArrayNode":
        if node.get("type") == "json" and isinstance(node.get("content"), list):
            dtype, shape = "O", (len(node["content"]),)
        else:
            dtype, shape = head(_file(node))
        if len(shape) == 1 and 1 < shape[0] <= MAX_CLASSES:
            label = (
                [{"name": LABEL, "dtype": "INT64", "shape": ["batch"]}] if dtype[-2:-1] in {"i", "u"} else []
            )
            return [*label, _port(PROBABILITIES, "FP32", int(shape[0]))]
    raise unsupported(
        "It has not one list of at least two classes. Save a classifier for each of its targets."
    )


def _array_head(archive: zipfile.ZipFile, member: Member) -> tuple[str, tuple[int, ...]]:
    """Type and shape of a `.npy` (numpy.lib.format), whose values are not read."""
    try:
        with unbroken(member), archive.open(member.info) as source:
            magic = source.read(8)
            if magic[:6] != b"\x93NUMPY":
                raise ValueError("no array")
            wide = magic[6] > 1
            (length,) = struct.unpack("<I" if wide else "<H", source.read(4 if wide else 2))
            described = ast.literal_eval(source.read(min(length, 10_000)).decode("latin-1"))
        shape = described["shape"]
        if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError("no shape")
        return str(described["descr"]), shape
    except (ValueError, SyntaxError, KeyError, TypeError, struct.error, MemoryError, RecursionError) as error:
        raise _bad(f"its {quoted(member.name)} is no array of NumPy") from error


def _port(name: str, dtype: str, width: int) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": ["batch", width]}


def _summary(schema: Node, *, size_bytes: int) -> dict[str, Any]:
    steps = _steps(schema)
    version = _plain(_attributes(steps[-1]).get("_sklearn_version")) or ""
    return {
        "size_bytes": size_bytes,
        "opset": {},
        "producer": f"scikit-learn {str(version)[:40]}".strip(),
        "architecture": " → ".join(str(each["__class__"])[:60] for each in steps[:12]),
        "operators": [],
        "parameters": None,
        "precision": "fp32",
        "findings": ["It computes in double precision; it is asked and exported in single precision."],
    }


def _bad(why: str) -> Unprocessable:
    return Unprocessable(
        "bad_sklearn",
        "This scikit-learn model cannot be used.",
        f"{why[0].upper()}{why[1:]}. Save it again with skops.io.dump.",
    )
