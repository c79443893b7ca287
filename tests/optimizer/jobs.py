"""Jobs that tests begin with, queued through the product's own verb."""

from datetime import timedelta
from typing import Any

from django.utils import timezone

from controlplane.accounts.access import Actor
from controlplane.registry.models import Dataset, Report, Variant, Version
from optimizer import services, transitions
from optimizer.domain.recipe import Recipe
from optimizer.models import Job, JobEvent, Worker
from tests import factories

GRAPH = [{"technique": "onnx-graph"}]


def queued(
    actor: Actor, version: Version, *, recipe: Any = GRAPH, evaluation_set: Dataset | None = None, **more: Any
) -> Job:
    job, _ = services.optimize(
        actor,
        version.variants.get(number=0),
        recipe=Recipe.from_json(recipe),
        evaluation_set=evaluation_set,
        **more,
    )
    return job


def running(actor: Actor, version: Version, *, owner: str = "w1@host", **more: Any) -> transitions.Claim:
    """A claimed job, with the fence that may write to it."""
    claim = transitions.claim(queued(actor, version, **more).pk, owner=owner)
    assert claim is not None
    return claim


def worker(
    name: str = "w1@host", *, queues: tuple[str, ...] = ("optimize.cpu",), age_s: float = 0, **more: Any
) -> Worker:
    now = timezone.now()
    return Worker.objects.create(
        name=name,
        queues=list(queues),
        hardware={"cpu": "Test CPU", "cores": 2, "gpus": [], "cpu_flags": ["avx2"]},
        versions={"python": "3.13"},
        load={"load_1m": 0.5, "total_bytes": 8 * 1024**3, "available_bytes": 6 * 1024**3},
        started_at=now - timedelta(hours=1),
        heartbeat_at=now - timedelta(seconds=age_s),
        **more,
    )


def step(job: Job, name: str, *, attempt: int, after_s: float, index: int = 1) -> JobEvent:
    """A step that began so long after the job was queued."""
    return JobEvent.objects.create(
        job=job,
        attempt=attempt,
        kind="step",
        message=name,
        data={"index": index, "of": 4},
        at=job.created_at + timedelta(seconds=after_s),
    )


def result(job: Job, *, verdict: str = "better", data: dict[str, Any] | None = None) -> Variant:
    """What the job made, with its report."""
    made = factories.variant(job.version, technique="onnx-graph", verdict=verdict)
    made.job_id = job.pk
    made.save()
    Report.objects.create(
        variant=made,
        job_id=job.pk,
        verdict=verdict,
        sentence=f"{made.get_verdict_display()}: 2.00x.",
        data=data or REPORT,
    )
    return made


def _estimate(value: float, low: float, high: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 40, "confidence": 0.95}


REPORT: dict[str, Any] = {
    "version": 1,
    "verdict": "better",
    "sentence": "Better: 2.00x.",
    "noisy": False,
    "notes": ["100 of 200 items were compared in the time given."],
    "method": {
        "threads": 1,
        "cores": [0],
        "seed": 7,
        "budget_s": 20.0,
        "elapsed_s": 22.0,
        "interleaved": True,
    }
    | {
        "load_average_before": 0.1,
        "load_average_after": 1.0,
        "clocks_before": {"cpu_mhz": [2600.0], "cpu_source": "cpufreq", "gpus": []},
        "clocks_after": {"cpu_mhz": [3100.0], "cpu_source": "cpufreq", "gpus": []},
        "parent_runs_by": "ONNX Runtime, ORT_ENABLE_ALL",
        "variant_runs_by": "ONNX Runtime, ORT_ENABLE_ALL",
    }
    | {"inputs": "an evaluation set of 200 labelled items"},
    "policy": {"noise_factor": 3.0, "max_loss": 0.01, "min_speedup": 1.05},
    "machine": {"cpu_model": "Test CPU", "cores": 2, "cpu_flags": ["avx2"], "memory_bytes": 8 * 1024**3}
    | {"system": "Linux", "python": "3.13", "versions": {"onnxruntime": "1.32"}},
    "control": [
        {
            "batch_size": 1,
            "first": _estimate(1.0, 0.99, 1.01),
            "beside": _estimate(1.0, 0.99, 1.01),
            "spread": 0.01,
        }
    ],
    "timings": [
        {
            "batch_size": size,
            "spread": 0.01,
            "noisy": False,
            "claim": "gain",
            "speedup": _estimate(2.0, 1.9, 2.1),
        }
        | {side: {"median_ms": ms, "p25_ms": ms, "p90_ms": ms, "rounds": 40} for side, ms in arms.items()}
        for size, arms in ((1, {"parent": 4.0, "variant": 2.0}), (8, {"parent": 20.0, "variant": 10.0}))
    ],
    "accuracy": {
        "basis": "labels",
        "how": "the same class from “y”",
        "compared": 100,
        "available": 200,
        "agreement": _estimate(0.99, 0.98, 1.0),
        "parent_accuracy": _estimate(0.9, 0.88, 0.92),
        "variant_accuracy": _estimate(0.89, 0.87, 0.91),
        "lost": 2,
        "gained": 1,
        "loss": _estimate(0.01, -0.002, 0.01),
        "outputs": [
            {
                "name": "y",
                "cosine_mean": 0.999,
                "cosine_min": 0.98,
                "relative_error": 0.01,
                "max_abs_difference": 0.1,
            }
        ],
    },
    "service_curve": [{"batch_size": 1, "median_ms": 2.0, "p25_ms": 1.9, "p90_ms": 2.2, "rounds": 40}],
    "parent": {"file_bytes": 4_000_000, "load_ms": 20.0, "memory_bytes": 30_000_000},
    "variant": {"file_bytes": 1_000_000, "load_ms": 10.0, "memory_bytes": None},
    "again": {"seed": 7, "evaluation_set": None, "answers": {}, "fitted_to": []},
    "promises": [
        {"technique": "onnx-graph", "label": "Graph optimization", "effort": "Minutes."}
        | {"speedup": [1.2, 2.0], "loss_points": [0.0, 0.0]}
    ],
}
