"""scikit-learn by skops: read for what it takes and gives without opening it, and refused where it names code."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from controlplane.core.errors import Unprocessable
from tests.controlplane.registry.intake.sklearn_files import (
    array,
    classifier,
    dictionary,
    estimator,
    listed,
    node,
    pipeline,
    plain,
    ridge,
    saved,
    scaler,
    skops,
)


def port(name: str, dtype: str, *shape: int | str) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape)}


def test_a_pipeline_says_its_features_and_classes_and_is_kept_as_it_is(
    look: Callable[..., dict[str, Any]],
) -> None:
    body = skops(pipeline(scaler(), classifier()))
    found = look(body)
    assert found["signature"] == {
        "inputs": [port("input", "FP32", "batch", 4)],
        "outputs": [port("label", "INT64", "batch"), port("probabilities", "FP32", "batch", 3)],
        "batch_axis": 0,
    }
    assert found["summary"]["architecture"] == "StandardScaler → LogisticRegression"
    assert found["summary"]["producer"] == "scikit-learn 1.9.1"
    with zipfile.ZipFile(io.BytesIO(body)) as given, zipfile.ZipFile(io.BytesIO(found["kept"])) as kept:
        assert {name: kept.read(name) for name in kept.namelist()} == {
            name: given.read(name) for name in given.namelist()
        }


def test_the_same_model_in_another_archive_is_the_same_file(look: Callable[..., dict[str, Any]]) -> None:
    schema = pipeline(scaler(), classifier())
    with zipfile.ZipFile(io.BytesIO(skops(schema))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(members.items()):
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content)
    assert look(other.getvalue())["kept"] == look(skops(schema))["kept"]


@pytest.mark.parametrize(
    ("schema", "arrays", "outputs"),
    [
        pytest.param(ridge(), {}, [port("variable", "FP32", "batch", 1)], id="regressor"),
        pytest.param(ridge(coef_=array("3.npy")), {}, [port("variable", "FP32", "batch", 3)], id="several"),
        pytest.param(
            estimator("sklearn.multioutput", "MultiOutputRegressor", estimators_=listed(ridge(), ridge())),
            {},
            [port("variable", "FP32", "batch", 2)],
            id="one for each",
        ),
        pytest.param(
            classifier(n_features_in_=plain(4)),
            {"n2": saved(np.asarray(["cat", "dog"]))},
            [port("probabilities", "FP32", "batch", 2)],
            id="texts",
        ),
        pytest.param(
            classifier(
                n_features_in_=plain(4),
                classes_=node("NdArrayNode", "numpy", "ndarray", type="json", content=[plain("a"), plain("b")]),
            ),
            {},
            [port("probabilities", "FP32", "batch", 2)],
            id="objects",
        ),
        pytest.param(
            classifier(n_features_in_=plain(4)),
            {"n2": saved(np.asarray([0.0, 1.0, 2.0]))},
            [port("probabilities", "FP32", "batch", 3)],
            id="fractions",
        ),
    ],
)  # fmt: skip
def test_outputs_follow_the_last_step(
    look: Callable[..., dict[str, Any]], schema: Any, arrays: dict[str, bytes], outputs: list[Any]
) -> None:
    assert look(skops(schema, **arrays))["signature"]["outputs"] == outputs


HOSTILE = {
    "function": node("FunctionNode", "os", "system"),
    "numpy's function": node("FunctionNode", "numpy", "log"),
    "method": node("MethodNode", "builtins", "eval", content={"func": "x", "obj": plain(1)}),
    "partial": node("PartialNode", "functools", "partial", content={}),
    "operator": node("OperatorFuncNode", "operator", "methodcaller", attrs={}),
    "reduced": node("ConstructorFromReduceNode", "subprocess", "Popen"),
    "stranger": estimator("my_package.models", "Classifier"),
    "a look-alike": estimator("sklearnx.linear_model", "LogisticRegression"),
    "a function of scikit-learn": node("FunctionNode", "sklearn.utils._testing", "set_random_state"),
    "a function beside those that choose features": node(
        "FunctionNode", "sklearn.feature_selection._univariate_selection", "check_X_y"
    ),
    "an object of Python": estimator("builtins", "object"),
    "a type": node("TypeNode", "os", "system"),
    "no loader": {"__module__": "os", "__class__": "system"},
    "an unknown loader": node("CachedNode", "numpy", "ndarray"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("deep", [False, True])
def test_whatever_names_code_is_refused_before_anything_is_opened(
    refused_here: Callable[[bytes], Unprocessable], what: str, deep: bool
) -> None:
    inner = HOSTILE[what]
    for _ in range(300 if deep else 0):
        inner = dictionary(x=inner)
    error = refused_here(skops(pipeline(scaler(), classifier(hook=inner))))
    assert error.code == "unsafe_format"
    assert str(HOSTILE[what]["__class__"]) in error.detail


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (skops(b"not JSON"), "bad_sklearn"),
        (skops(b"[]"), "bad_sklearn"),
        (skops(b"[" * 100_000), "bad_sklearn"),
        (skops(b'{"a": 1}'), "bad_sklearn"),
        (skops(ridge(coef_=node("NdArrayNode", "numpy", "ndarray", type="numpy", file="9.npy"))), "bad_sklearn"),
        (skops(ridge(coef_=node("NdArrayNode", "numpy", "ndarray", type="numpy", file="../1.npy"))), "bad_sklearn"),
        (skops(ridge(coef_=node("NdArrayNode", 1, "ndarray"))), "bad_sklearn"),
        (skops(ridge(), n8=b""), "unsafe_archive"),
        (skops(ridge(n_features_in_=plain("4"))), "unsupported_signature"),
        (skops(ridge(n_features_in_=plain(0))), "unsupported_signature"),
        (skops(ridge(n_features_in_=plain(True))), "unsupported_signature"),
        (skops(ridge(coef_=plain(1), n_outputs_=plain(2))), "unsupported_signature"),
        (skops(ridge(coef_=array("3.npy")), n3=saved(np.zeros((0, 4)))), "unsupported_signature"),
        (skops(estimator("sklearn.cluster._kmeans", "KMeans", n_features_in_=plain(4))), "unsupported_signature"),
        (skops(classifier(hook=estimator("sklearn.datasets._base", "Bunch"))), "unsupported_signature"),
        (skops(classifier()), "unsupported_signature"),
        (skops(pipeline()), "bad_sklearn"),
        (skops(estimator("sklearn.pipeline", "Pipeline", steps=plain([1]))), "bad_sklearn"),
        (skops(scaler()), "unsupported_signature"),
        (skops(estimator("sklearn.svm._classes", "OneClassSVM", n_features_in_=plain(4))), "unsupported_signature"),
        (skops(classifier(n_features_in_=plain(4), probability=plain(False))), "unsupported_signature"),
        (skops(classifier(n_features_in_=plain(4)), n2=saved(np.zeros((2, 2)))), "unsupported_signature"),
        (skops(classifier(n_features_in_=plain(4)), n2=saved(np.zeros(1, int))), "unsupported_signature"),
        (skops(classifier(n_features_in_=plain(4)), n2=b"no array"), "bad_sklearn"),
        (skops(classifier(n_features_in_=plain(4)), n2=saved(np.arange(3))[:9]), "bad_sklearn"),
        (skops(classifier(n_features_in_=plain(4)), n2=saved(np.arange(3)).replace(b"(3,)", b"'3' ")), "bad_sklearn"),
    ],
)  # fmt: skip
def test_what_is_no_fitted_model_is_refused_with_what_it_lacks(
    refused_here: Callable[[bytes], Unprocessable], body: bytes, code: str
) -> None:
    assert refused_here(body).code == code


def test_a_pickle_beside_the_schema_makes_it_no_model(refused_here: Callable[[bytes], Unprocessable]) -> None:
    with zipfile.ZipFile(io.BytesIO(skops(ridge()))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in {**members, "model.pkl": b"\x80\x04."}.items():
            archive.writestr(name, content)
    assert refused_here(body.getvalue()).code == "unsafe_format"


def test_the_arrays_head_is_read_and_never_evaluated(refused_here: Callable[[bytes], Unprocessable]) -> None:
    head = b"{'descr': __import__('os').system('true'), 'shape': (3,)}"
    hostile = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head
    error = refused_here(skops(classifier(n_features_in_=plain(4)), n2=hostile))
    assert error.code == "bad_sklearn"
    assert json.dumps(error.detail)
