"""Every component in every state on one page, with made-up values, so that the look can be judged and tested.

Only with DEBUG: the address does not exist otherwise. No query, so that it also shows without a database.
Refused: a separate gallery project; the page uses the same templates and sheets as the product.
"""

import math
import random
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from django import forms
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import URLPattern, path

from controlplane.core.vocabulary import WORDS, Tone

SECONDS = {
    "5m": 300,
    "15m": 900,
    "1h": 3600,
    "6h": 21_600,
    "24h": 86_400,
    "7d": 604_800,
    "30d": 2_592_000,
    "all": 604_800,
}


class SampleForm(forms.Form):
    name = forms.SlugField(
        label="Name", help_text="Small letters, digits and hyphens. It becomes part of the address."
    )
    target = forms.FloatField(
        label="p99 target", required=False, help_text="The charts show it as a dashed line."
    )
    technique = forms.ChoiceField(
        label="Technique", choices=[("int8-static", "int8-static"), ("int8-dynamic", "int8-dynamic")]
    )
    stack = forms.ChoiceField(
        label="Stack", widget=forms.RadioSelect, choices=[("fastapi", "FastAPI"), ("triton", "Triton")]
    )
    notes = forms.CharField(label="Notes", required=False, widget=forms.Textarea(attrs={"rows": 3}))
    artifact = forms.FileField(
        label="Model file", required=False, help_text="ONNX, or a zip with external data. Up to 2 GiB."
    )
    calibrate = forms.BooleanField(label="Take the calibration set from the evaluation set", required=False)


class FilterForm(forms.Form):
    q = forms.CharField(
        label="Name",
        required=False,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "Filter by name"}),
    )
    state = forms.ChoiceField(
        label="State",
        required=False,
        choices=[("", "Any state"), ("running", "Running"), ("failed", "Failed")],
    )
    technique = forms.ChoiceField(
        label="Technique", required=False, choices=[("", "Any technique"), ("int8-static", "int8-static")]
    )


def _wave(count: int, *, base: float, swing: float, seed: int) -> list[float]:
    source = random.Random(seed)  # noqa: S311 - made-up values for a picture
    return [
        max(0.0, base + swing * math.sin(index / count * 9 + seed) + source.uniform(-swing, swing) * 0.35)
        for index in range(count)
    ]


def _series(start: float, end: float) -> dict[str, Any]:
    count = 180
    step = (end - start) / count
    times = [round(start + index * step, 1) for index in range(count)]
    p50 = _wave(count, base=6.2, swing=0.9, seed=1)
    bump = [18 * math.exp(-(((index - 118) / 7) ** 2)) for index in range(count)]
    series: dict[str, Any] = {
        "p50_ms": [value + 0.2 * extra for value, extra in zip(p50, bump, strict=True)],
        "p95_ms": [value * 1.9 + 0.8 * extra for value, extra in zip(p50, bump, strict=True)],
        "p99_ms": [value * 2.6 + 1.6 * extra for value, extra in zip(p50, bump, strict=True)],
        "throughput": _wave(count, base=240, swing=60, seed=4),
        "error_rate": [0.02 if 116 < index < 124 else 0.0 for index in range(count)],
        "queue_depth": [
            value + extra for value, extra in zip(_wave(count, base=2, swing=2, seed=2), bump, strict=True)
        ],
        "in_flight": [
            value + 1.4 * extra
            for value, extra in zip(_wave(count, base=6, swing=2, seed=3), bump, strict=True)
        ],
        "replicas": [4 if 122 < index < 160 else 2 for index in range(count)],
    }
    for values in series.values():
        values[60:68] = [None] * 8
    marks = [
        {"t": times[30], "kind": "rollout", "text": "Rollout of revision 7 began"},
        {"t": times[122], "kind": "scaling", "text": "2 to 4 replicas: queue depth 19 over 2 × 8"},
        {"t": times[160], "kind": "scaling", "text": "4 to 2 replicas"},
    ]
    return {"t": times, **series, "marks": marks}


@login_not_required
def series(request: HttpRequest) -> JsonResponse:
    end = datetime.now(UTC).timestamp()
    if "from" in request.GET:
        return JsonResponse(_series(float(request.GET["from"]), float(request.GET["to"])))
    return JsonResponse(_series(end - SECONDS.get(request.GET.get("range", ""), 900), end))


def _lines(now: datetime) -> list[dict[str, Any]]:
    said = [
        ("info", "Attempt 1 on worker cpu-1: 2 cores, AVX2, no GPU", 1),
        ("info", "Step 1 of 4: onnx-graph", 1),
        ("debug", "constant folding removed 41 nodes", 1),
        ("error", "worker cpu-1 vanished; the lease ran out after 20 s", 1),
        ("info", "Attempt 2 on worker cpu-2", 2),
        ("info", "Step 2 of 4: int8-static, 512 calibration items from the evaluation set", 2),
        (
            "warning",
            "tensor /encoder/act_fn/Mul_output_0 has outliers: 99.99 % lie within 6.1, the largest is 88.4",
            2,
        ),
        *(("info", f"calibrated {done} of 512 items", 2) for done in range(32, 513, 32)),
    ]
    return [
        {
            "id": index,
            "at": now - timedelta(seconds=90 - 3 * index),
            "level": level,
            "message": message,
            "attempt": attempt,
        }
        for index, (level, message, attempt) in enumerate(said, start=1)
    ]


@login_not_required
def log(request: HttpRequest) -> JsonResponse:
    after = int(request.GET.get("after", "0"))
    events = [line for line in _lines(datetime.now(UTC)) if line["id"] > after]
    return JsonResponse({"events": events, "next": events[-1]["id"] if events else after})


def _context() -> dict[str, Any]:
    now = datetime.now(UTC)
    bound = SampleForm(
        {"name": "Fraud Detector", "technique": "int8-static", "stack": "fastapi", "target": "fast"}
    )
    bound.is_valid()
    return {
        "now": now,
        "long_ago": now - timedelta(days=3, hours=4),
        "soon": now + timedelta(seconds=8),
        "words": WORDS,
        "tones": [tone.value for tone in Tone],
        "form": SampleForm(),
        "wrong": bound,
        "listing": SimpleNamespace(
            sort="name",
            sort_url=lambda sort: f"?sort={sort}",
            newest_first=False,
            shown="5 of 1,204 deployments",
            first_url="#",
            next_url="#",
            csv_url="#",
        ),
        "filters": FilterForm(auto_id="filter_%s"),
        "tabs": [
            {"label": "Overview", "url": "#", "current": True},
            {"label": "Rollouts", "url": "#", "count": 7},
            {"label": "Metrics", "url": "#"},
            {"label": "Scaling", "url": "#"},
            {"label": "Settings", "url": "#"},
        ],
        "trend": _wave(48, base=20, swing=7, seed=5),
        "rate": _wave(48, base=240, swing=60, seed=4),
        "flat": [0.0] * 20 + [None] * 6 + [1.0, 2.0, 4.0, 3.0, 1.0] + [0.0] * 10,
        "stairs": [2.0] * 20 + [4.0] * 12 + [3.0] * 10,
        "steps": [
            {"name": "onnx-graph", "state": "succeeded", "duration_s": 2.41},
            {
                "name": "int8-static",
                "state": "running",
                "duration_s": 74.2,
                "note": "Calibrating",
                "done": 288,
                "total": 512,
                "unit": "items",
            },
            {"name": "Paired benchmark", "state": "pending", "duration_s": None},
            {"name": "Accuracy", "state": "pending", "duration_s": None},
        ],
        "failed_steps": [
            {"name": "onnx-graph", "state": "succeeded", "duration_s": 2.41},
            {
                "name": "int8-dynamic",
                "state": "failed",
                "duration_s": 8.3,
                "note": "Out of memory: the child needed more than 3 GiB.",
            },
        ],
        "changes": [
            {
                "op": "change",
                "path": "variant",
                "before": "magika v3 · original",
                "after": "magika v3 · int8-static",
            },
            {"op": "change", "path": "batching.max_batch_size", "before": "8", "after": "16"},
            {"op": "add", "path": "batching.preferred_batch_size", "before": "", "after": "[4, 8]"},
            {"op": "remove", "path": "environment.OMP_NUM_THREADS", "before": "1", "after": ""},
        ],
        "comparison": [
            {
                "measure": "Latency p50, batch 1",
                "parent": 4.12,
                "variant": 2.07,
                "unit": "ms",
                "ratio": 0.502,
                "low": 0.481,
                "high": 0.53,
                "better": "lower",
                "note": "600 pairs, A/A spread 1.1 %",
            },
            {
                "measure": "Latency p50, batch 8",
                "parent": 21.4,
                "variant": 20.9,
                "unit": "ms",
                "ratio": 0.977,
                "low": 0.94,
                "high": 1.02,
                "better": "lower",
                "note": "600 pairs",
            },
            {
                "measure": "Accuracy",
                "parent": 98.7,
                "variant": 98.2,
                "unit": "%",
                "ratio": 0.995,
                "low": 0.991,
                "high": 0.998,
                "better": "higher",
                "note": "2,048 labelled items",
            },
            {
                "measure": "Size",
                "parent": 3.05,
                "variant": 0.812,
                "unit": "MiB",
                "ratio": 0.266,
                "low": 0.266,
                "high": 0.266,
                "better": "lower",
                "note": "",
            },
        ],
        "findings": [
            {
                "severity": "blocking",
                "title": "The target cannot load this variant",
                "evidence": "It needs compute capability 8.9; the node has no GPU.",
                "todo": "Choose a CPU variant, or another target.",
            },
            {
                "severity": "warning",
                "title": "Fewer cores than threads",
                "evidence": "2 replicas with 2 threads each, 2 cores.",
                "todo": "Set threads to 1.",
            },
            {"severity": "ok", "title": "The signature matches what is live", "evidence": "", "todo": ""},
        ],
        "rows": [
            {
                "name": "fraud-detector",
                "state": "healthy",
                "detail": "",
                "p99": 18.4,
                "rate": 241.0,
                "queue": 0.4,
                "replicas": "3/3",
                "trend": _wave(32, base=18, swing=3, seed=9),
                "at": now - timedelta(hours=2),
            },
            {
                "name": "file-types",
                "state": "progressing",
                "detail": "2 of 3 ready",
                "p99": 31.2,
                "rate": 88.2,
                "queue": 2.1,
                "replicas": "2/3",
                "trend": _wave(32, base=24, swing=8, seed=8),
                "at": now - timedelta(seconds=42),
            },
            {
                "name": "sentiment",
                "state": "degraded",
                "detail": "p99 over target for 4 min",
                "p99": 184.0,
                "rate": 512.0,
                "queue": 37.0,
                "replicas": "4/4",
                "trend": _wave(32, base=90, swing=60, seed=7),
                "at": now - timedelta(days=1),
            },
            {
                "name": "ner-multilingual-with-a-rather-long-name",
                "state": "scaled_to_zero",
                "detail": "",
                "p99": None,
                "rate": 0.0,
                "queue": 0.0,
                "replicas": "0/0",
                "trend": [],
                "at": now - timedelta(days=9),
            },
            {
                "name": "embeddings",
                "state": "failed",
                "detail": "revision 4 never became ready",
                "p99": None,
                "rate": None,
                "queue": None,
                "replicas": "0/2",
                "trend": [],
                "at": now - timedelta(minutes=7),
            },
        ],
        "lines": _lines(now),
        "body": {"version": 3, "recipe": [{"technique": "int8-static"}]},
    }


@login_not_required
def styleguide(request: HttpRequest) -> HttpResponse:
    here = {"series_url": f"{request.path}series/", "log_url": f"{request.path}log/"}
    return render(request, "ui/styleguide.html", _context() | here)


urlpatterns: list[URLPattern] = [
    path("styleguide/", styleguide, name="styleguide"),
    path("styleguide/series/", series, name="styleguide-series"),
    path("styleguide/log/", log, name="styleguide-log"),
]
