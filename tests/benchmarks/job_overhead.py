"""S6: what a job costs beside its work: from its row to its end, without measuring and the technique's own time.

The whole product runs, the model is the real classifier that the demo uses. What measuring took is what the report
says; what the technique takes is measured directly in the same round. What is left is queueing, checking the input,
starting two sandboxes and importing in them, storing the variant, and every row written on the way.
"""

import io
import json
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from controlplane.core.errors import Unprocessable
from controlplane.embedded.demo.client import Api
from controlplane.settings.environment import REPOSITORY, read_environment
from optimizer import toolchains
from optimizer.domain.recipe import Recipe, Step
from optimizer.techniques import TECHNIQUES, check_recipe, technique
from tests.benchmarks.result import Row, median, quartiles
from tests.optimizer.onnx_models import MAGIKA_SIGNATURE, magika_path
from tests.product import running_product

AT_MOST_S = 3.0
ROUNDS = 3
ITEMS = 64
SEED = 20261125
MEASURE_S = "1"
OVER = ("succeeded", "failed", "cancelled")


def run(*, full: bool) -> list[Row]:
    keys = [key for key in TECHNIQUES if _runs_here(key)]
    overheads: dict[str, list[float]] = {key: [] for key in keys}
    directly: dict[str, list[float]] = {key: [] for key in keys}
    with (
        running_product(SLIPWAY_MEASURE_BUDGET_S=MEASURE_S) as product,
        tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder,
    ):
        calibration = Path(folder) / "calibration.npz"
        calibration.write_bytes(_items())
        api = Api(url=product.url, token=product.token())
        api.post("models/", {"name": "bench"})
        api.upload("models/bench/versions/upload/?filename=model.onnx", magika_path().read_bytes())
        api.upload("models/bench/datasets/calibration/?role=calibration", calibration.read_bytes())
        for _ in range(3 * ROUNDS if full else ROUNDS):
            for key in keys:
                own_s = _directly(key, calibration=calibration, folder=Path(folder))
                directly[key].append(own_s)
                overheads[key].append(_job(api, key) - own_s)
    return [_row(key, overheads[key], directly[key]) for key in keys]


def _runs_here(key: str) -> bool:
    """Its toolchain is installed, and it takes this model."""
    recipe = Recipe(steps=(Step(technique=key),))
    try:
        check_recipe(recipe, signature=MAGIKA_SIGNATURE, summary={}, has_calibration=True)
    except Unprocessable:
        return False
    return _interpreter(key) is not None


def _interpreter(key: str) -> Path | None:
    needed = technique(key).toolchain
    return toolchains.python(read_environment().toolchains, needed) if needed else Path(sys.executable)


def _items() -> bytes:
    content = io.BytesIO()
    np.savez(content, bytes=np.random.default_rng(SEED).integers(0, 257, (ITEMS, 2048), dtype=np.int32))
    return content.getvalue()


def _job(api: Api, key: str) -> float:
    """Seconds from the row to its end, by the database's clock, without what measuring took."""
    recipe = {
        "model": "bench",
        "version": 1,
        "recipe": [{"technique": key}],
        "calibration_set": "calibration",
    }
    queued = api.post("jobs/", recipe)
    job = api.wait(f"jobs/{queued['id']}/", lambda seen: seen["state"] in OVER, within_s=300)
    assert job["state"] == "succeeded", job["message"]
    report = api.get(f"{job['variant'].removeprefix('/api/v1/')}report/")
    took = datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["created_at"])
    return took.total_seconds() - float(report["report"]["method"]["elapsed_s"])


def _directly(key: str, *, calibration: Path, folder: Path) -> float:
    spec: dict[str, Any] = {
        "technique": key,
        "params": {},
        "input_path": str(magika_path()),
        "output_path": str(folder / "made"),
        "calibration_npz": str(calibration),
        "evaluation_npz": None,
        "signature": MAGIKA_SIGNATURE,
        "seed": SEED,
    }
    done = subprocess.run(
        [str(_interpreter(key)), "-m", "tests.benchmarks.technique_directly", json.dumps(spec)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


def _row(key: str, overheads: list[float], own: list[float]) -> Row:
    return Row(
        metric=f"job of {key}: its wall time without measuring and the technique's own",
        value=median(overheads),
        unit="s",
        baseline=median(own),
        ratio=median(overheads) / median(own),
        target=f"<= {AT_MOST_S:g} s",
        met=median(overheads) <= AT_MOST_S,
        n=len(overheads),
        spread=quartiles(overheads),
    )
