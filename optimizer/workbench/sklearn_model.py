"""A scikit-learn model as a report runs it, and as ONNX export takes it. Needs the toolchain `sklearn`.

skops builds it from the types that it trusts and the few below, which hold arrays only; intake looked before.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.sklearn_model import INPUT, LABEL, PROBABILITIES, VARIABLE
from optimizer.workbench.session import first_line, pass_on
from optimizer.workbench.signature import Array, Feed

TRUSTED = [
    "numpy.dtype",
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.utils._bunch.Bunch",
    *(f"sklearn._loss.loss.HalfTweedieLoss{link}" for link in ("", "Identity")),
    *(f"sklearn.metrics._dist_metrics.{name}Distance64" for name in ("Euclidean", "Manhattan", "Minkowski")),
    *(
        f"sklearn.gaussian_process.kernels.{kernel}"
        for kernel in (
            *("ConstantKernel", "DotProduct", "Exponentiation", "ExpSineSquared", "Matern"),
            *("Product", "RBF", "RationalQuadratic", "Sum", "WhiteKernel"),
        )
    ),
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    *(
        f"sklearn.feature_selection._univariate_selection.{score}"
        for score in ("chi2", "f_classif", "f_oneway", "f_regression", "r_regression")
    ),
    *(f"sklearn.feature_selection._mutual_info.mutual_info_{kind}" for kind in ("classif", "regression")),
]
LABELS_APART = ("SVC", "NuSVC")
"""Their probabilities are fitted beside their decisions, and may name another class."""


def load_runtime() -> None:
    import skops.io  # noqa: F401


class Model:
    """Takes `input` FP32 [batch, features]; answers `probabilities` FP32 [batch, classes] and, where classes are whole
    numbers, `label` INT64 [batch]; or `variable` FP32 [batch, targets]."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator
        last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
        self._labels_apart = type(last).__name__ in LABELS_APART

    def run(self, outputs: Sequence[str], feed: Feed, /) -> list[Array]:
        """The model is asked once where its labels follow from the probabilities, as a server of it would do."""
        rows = feed[INPUT]
        if VARIABLE in outputs:
            return [np.asarray(self.estimator.predict(rows), np.float32).reshape(len(rows), -1)]
        probabilities = self.estimator.predict_proba(rows)
        found = {PROBABILITIES: np.asarray(probabilities, np.float32)}
        if LABEL in outputs:
            likely = self.estimator.classes_[probabilities.argmax(axis=1)]
            found[LABEL] = np.asarray(
                self.estimator.predict(rows) if self._labels_apart else likely, np.int64
            )
        return [found[name] for name in outputs]


def open_model(path: Path, *, threads: int = 1) -> Model:
    """Raises Unprocessable: `model_does_not_open`, and `no_probabilities`. Sets the threads of the whole process."""
    import threadpoolctl
    from skops.io import load

    threadpoolctl.threadpool_limits(threads)
    try:
        estimator = load(path, trusted=TRUSTED)
        jobs = [name for name in estimator.get_params() if name.rpartition("__")[2] == "n_jobs"]
        estimator.set_params(**dict.fromkeys(jobs, 1))
    except Exception as error:  # whatever a damaged file makes numpy, skops and scikit-learn raise
        pass_on(error)
        raise Unprocessable(
            "model_does_not_open", "scikit-learn cannot open this model.", first_line(error)
        ) from error
    if hasattr(estimator, "classes_") and not hasattr(estimator, "predict_proba"):
        raise Unprocessable(
            "no_probabilities",
            "This classifier gives no probabilities.",
            "Fit it with them, or inside of a CalibratedClassifierCV, and upload it again.",
        )
    return Model(estimator)
