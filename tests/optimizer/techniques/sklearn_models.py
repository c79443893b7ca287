"""scikit-learn models fitted, taken in and exported by a child on its toolchain. Imports nothing of the tests."""

from pathlib import Path
from typing import Any

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake import archive as zips
from controlplane.registry.intake import sklearn_model
from optimizer.techniques.child import run
from optimizer.workbench.formats import open_as

ROWS = 200


def models() -> dict[str, Any]:
    """Fitted to digits, whose classes are 0 to 9; and some that are refused."""
    import numpy as np
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.datasets import load_diabetes, load_digits
    from sklearn.ensemble import (
        GradientBoostingRegressor,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
        StackingRegressor,
    )
    from sklearn.feature_selection import SelectKBest
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, WhiteKernel
    from sklearn.impute import SimpleImputer
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC
    from sklearn.tree import DecisionTreeRegressor

    x, y = load_digits(return_X_y=True)
    x, y = x[:ROWS], y[:ROWS]
    amounts = load_diabetes(return_X_y=True)
    words = np.asarray(["even", "odd"])[y % 2]
    return {
        "line": make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(x, y),
        "forest": RandomForestClassifier(12, random_state=0, n_jobs=2).fit(x, y),
        "boosted": HistGradientBoostingClassifier(max_iter=4, random_state=0).fit(x, y),
        "network": MLPClassifier((8,), max_iter=30, random_state=0).fit(x, y),
        "neighbours": KNeighborsClassifier(3).fit(x, y),
        "words": LogisticRegression(max_iter=300).fit(x, words),
        "amount": Ridge().fit(*amounts),
        "trees": GradientBoostingRegressor(n_estimators=10, random_state=0).fit(*amounts),
        "several": MultiOutputRegressor(Ridge()).fit(amounts[0], np.c_[amounts[1], -amounts[1]]),
        "tree of neighbours": KNeighborsRegressor().fit(*amounts),
        "process": GaussianProcessRegressor(RBF() + WhiteKernel(), normalize_y=True).fit(*amounts),
        "stack": StackingRegressor([("line", Ridge()), ("tree", DecisionTreeRegressor(max_depth=3))]).fit(
            *amounts
        ),
        "chosen": make_pipeline(
            SimpleImputer(), SelectKBest(k=9), CalibratedClassifierCV(LinearSVC(random_state=0))
        ).fit(x, y),
        "no probabilities": SGDClassifier(random_state=0).fit(x, y),
        "no converter": make_pipeline(Nystroem(n_components=5), Ridge()).fit(*amounts),
    }


def export(spec: dict[str, Any], emit: Any) -> dict[str, Any]:
    """For each model the file that it was exported to and the answers of scikit-learn, or why it was refused."""
    import warnings

    import numpy as np
    from skops.io import dump

    warnings.simplefilter("ignore")  # some stop before they converge, which is no matter here
    folder, found = Path(spec["folder"]), {}
    for number, (name, model) in enumerate(models().items()):
        source, kept = folder / f"{number}.skops", folder / f"{number}-kept.skops"
        dump(model, source)
        messages: list[dict[str, Any]] = []
        try:
            with zips.opened(source) as archive:
                members = zips.members(archive, file_bytes=source.stat().st_size, total_bytes=10**8)
                taken = sklearn_model.inspect(archive, members, kept)
            done = run(
                {
                    "technique": "onnx-export",
                    "params": {},
                    "input_path": str(kept),
                    "input_format": "sklearn",
                    "output_path": str(folder / f"{number}.onnx"),
                    "signature": taken["signature"],
                    "seed": 3,
                },
                messages.append,
            )
        except Unprocessable as error:
            found[name] = {"code": error.code, "detail": error.detail}
            continue
        width = taken["signature"]["inputs"][0]["shape"][1]
        rows = np.random.default_rng(0).normal(size=(9, width)).astype(np.float32)
        names = [port["name"] for port in taken["signature"]["outputs"]]
        answers = open_as("sklearn", kept).run(names, {"input": rows})
        found[name] = {
            "onnx": str(folder / f"{number}.onnx"),
            "done": done,
            "signature": taken["signature"],
            "rows": rows.tolist(),
            "answers": [answer.tolist() for answer in answers],
        }
    return found
