"""A `.skops` as skops.io.dump writes it, by hand: the web's tests have no scikit-learn."""

import io
import json
from typing import Any

import numpy as np

from tests.controlplane.registry.intake.models import zipped

type Node = dict[str, Any]


def node(loader: str, module: str, name: str, **more: Any) -> Node:
    return {"__loader__": loader, "__module__": module, "__class__": name, **more}


def plain(value: Any) -> Node:
    return node("JsonNode", "builtins", "str", content=json.dumps(value), is_json=True)


def array(file: str) -> Node:
    return node("NdArrayNode", "numpy", "ndarray", type="numpy", file=file)


def dictionary(**items: Node) -> Node:
    return node(
        "DictNode",
        "builtins",
        "dict",
        content=items,
        key_types=node("ListNode", "builtins", "list", content=[]),
    )


def estimator(module: str, name: str, **attributes: Node) -> Node:
    return node("ObjectNode", module, name, content=dictionary(**attributes))


def listed(*items: Node) -> Node:
    return node("ListNode", "builtins", "list", content=list(items))


def pipeline(*steps: Node) -> Node:
    rows = [
        node("TupleNode", "builtins", "tuple", content=[plain(f"step{number}"), step])
        for number, step in enumerate(steps)
    ]
    return estimator("sklearn.pipeline", "Pipeline", steps=listed(*rows))


def scaler(**more: Node) -> Node:
    return estimator(
        "sklearn.preprocessing._data", "StandardScaler", n_features_in_=plain(4), mean_=array("1.npy"), **more
    )


def classifier(**more: Node) -> Node:
    return estimator(
        "sklearn.linear_model._logistic",
        "LogisticRegression",
        **{"classes_": array("2.npy"), "coef_": array("3.npy"), "_sklearn_version": plain("1.9.1"), **more},
    )


def ridge(**more: Node) -> Node:
    return estimator(
        "sklearn.linear_model._ridge",
        "Ridge",
        **{"n_features_in_": plain(4), "coef_": array("1.npy"), **more},
    )


def saved(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


ARRAYS = {"1.npy": saved(np.zeros(4)), "2.npy": saved(np.arange(3)), "3.npy": saved(np.zeros((3, 4)))}


def skops(schema: Any, **arrays: bytes) -> bytes:
    """With those of `ARRAYS` that the schema names; others are given as `n2` for `2.npy`."""
    whole = schema if isinstance(schema, bytes) else schema | {"protocol": 2, "_skops_version": "0.16"}
    text = whole if isinstance(whole, bytes) else json.dumps(whole).encode()
    given = {f"{name[1:]}.npy": content for name, content in arrays.items()}
    named = {name: content for name, content in ARRAYS.items() if name.encode() in text}
    return zipped({**named, **given, "schema.json": text})
