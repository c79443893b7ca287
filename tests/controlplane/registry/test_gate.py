"""What a gate asks, judged on evidence that was measured under other limits."""

from pathlib import Path
from typing import Any

import pytest

from controlplane.registry import services
from controlplane.registry.gate import Gate, failures
from controlplane.registry.models import Alias, Variant
from optimizer import measuring
from optimizer.worker import attempt
from tests import factories
from tests.optimizer import jobs

pytestmark = pytest.mark.django_db


@pytest.fixture
def measured(three) -> Variant:
    """Twice as fast, at most one point lost of 90 %, 2 ms for one item."""
    owner, _, _ = three
    version = factories.version(factories.model(owner.actor.team))
    return jobs.result(jobs.queued(owner.actor, version))


@pytest.mark.parametrize(
    "gate",
    [
        {},
        {"min_speedup": 1.9},
        {"max_relative_loss_percent": 1.2},
        {"max_size_mib": 0.001},
        {"max_latency_ms": 2.0},
    ],
)
def test_evidence_within_the_limits_passes(measured: Variant, gate: dict[str, Any]) -> None:
    assert failures(measured, Gate(**gate)) == []


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"min_speedup": 3.0}, "at least 3.00x is asked"),
        ({"max_loss_points": 0.5}, "whether it stays within a loss of 0.5 points"),
        (
            {"max_relative_loss_percent": 1.0},
            "It may lose 1.1 % of its parent's accuracy; at most 1 % are allowed.",
        ),
        ({"max_size_mib": 0.0005}, "Its file has 0.977 KiB; at most 0.0005 MiB are allowed."),
        ({"max_latency_ms": 1.5}, "It takes 2 ms for one item; at most 1.5 ms are allowed."),
    ],
)
def test_each_limit_refuses_with_what_was_measured(
    measured: Variant, gate: dict[str, Any], said: str
) -> None:
    (reason,) = failures(measured, Gate(**gate))
    assert said in reason


def test_a_gate_that_was_relaxed_lets_through_what_was_refused_before(three) -> None:
    owner, _, _ = three
    version = factories.version(factories.model(owner.actor.team))
    accuracy = jobs.REPORT["accuracy"] | {
        "loss": jobs.REPORT["accuracy"]["loss"] | {"low": 0.02, "high": 0.04}
    }
    data = jobs.REPORT | {"verdict": "faster_but_inaccurate", "accuracy": accuracy}
    variant = jobs.result(jobs.queued(owner.actor, version), data=data)
    assert failures(variant, Gate()) != []
    assert failures(variant, Gate(max_loss_points=5.0)) == []
    services.set_gate(owner.actor, version.model, Gate(max_loss_points=5.0))
    services.move_alias(owner.actor, version.model, name="champion", variant=variant)
    assert Alias.objects.get().variant == variant


def test_what_failed_stays_failed_and_what_took_no_time_is_not_fast_enough(three) -> None:
    owner, _, _ = three
    version = factories.version(factories.model(owner.actor.team))
    failed = jobs.result(
        jobs.queued(owner.actor, version),
        data=jobs.REPORT | {"verdict": "failed", "sentence": "Failed: NaN."},
    )
    assert failures(failed, Gate(min_speedup=1.0, max_loss_points=100.0)) == ["Failed: NaN."]
    unmeasured = jobs.result(jobs.queued(owner.actor, version), data=jobs.REPORT | {"timings": []})
    assert failures(unmeasured, Gate(max_latency_ms=100.0)) == [
        "Its time for one item is not known; at most 100 ms are allowed."
    ]


def test_a_versions_own_bytes_are_asked_nothing(three) -> None:
    owner, _, _ = three
    version = factories.version(factories.model(owner.actor.team))
    strict = Gate(min_speedup=1000.0, max_size_mib=0.0, max_latency_ms=0.0)
    assert failures(version.variants.get(), strict) == []


def test_a_job_measures_by_the_gate_of_its_model(three, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, _, _ = three
    version = factories.version(factories.model(owner.actor.team))
    services.set_gate(owner.actor, version.model, Gate(min_speedup=1.5, max_loss_points=0.2))
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(attempt, "supervise", lambda **given: asked.append(given["spec"]) or {})
    inputs = attempt.Inputs(parent=None, variant=None, evaluation=None, calibration=None)  # type: ignore[arg-type]
    job = jobs.queued(owner.actor, version)
    file = attempt.Made(path=Path("x"), format="onnx", precision="fp32")
    again = measuring.note(seed=1, evaluation_set=None, answers={}, fitted_to=[])
    attempt._measure(
        job,
        inputs=inputs,
        stages=[file, file],
        techniques=[],
        engine=None,
        again=again,
        hold=None,
        folder=None,  # type: ignore[arg-type]
    )
    policy = asked[0]["policy"]
    assert (policy["min_speedup"], policy["max_loss"], policy["max_disagreement"]) == (1.5, 0.002, 0.002)
