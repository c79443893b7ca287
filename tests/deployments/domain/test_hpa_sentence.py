"""Every rule that can decide is told in a sentence that a person understands."""

from __future__ import annotations

import pytest

from deployments.domain.hpa import HpaSpec, HpaState, LimitedBy, Observation, decide
from tests.deployments.domain.hpa_cases import BUSY, hpa, metric, policy, settled, sync

OFF = {"selectPolicy": "Disabled"}
TWO = [metric(), metric(BUSY)]
SLOWLY = {"stabilizationWindowSeconds": 0, "policies": [policy("Percent", 25, 60)]}
PODS_OR_PERCENT = {"selectPolicy": "Min", "policies": [policy("Pods", 1, 15), policy("Percent", 100, 30)]}


@pytest.mark.parametrize(
    ("spec", "start", "observation", "limited_by", "told"),
    [
        (
            hpa(),
            4,
            sync(15, 4, 38),
            LimitedBy.NONE,
            "Held at 4: inference_queue_depth 38 (1 s old) asks for 4 at 10 per replica.",
        ),
        (
            hpa(),
            4,
            sync(15, 4, 43),
            LimitedBy.TOLERANCE,
            "Held at 4: inference_queue_depth 43 (1 s old) asks for 5 at 10 per replica, but that is within the "
            "tolerance of 10 %.",
        ),
        (
            hpa(),
            2,
            sync(15, 2, 1000),
            LimitedBy.SCALE_UP_POLICY,
            "Scaled 2 to 4: inference_queue_depth 1,000 (1 s old) asks for 100 at 10 per replica, limited to 4 "
            "because the rule is at most double, or 4, per sync of 15 s.",
        ),
        (
            hpa(),
            10,
            sync(15, 10, 0),
            LimitedBy.STABILIZATION,
            "Held at 10: inference_queue_depth 0 (1 s old) asks for 0 at 10 per replica, but the highest "
            "recommendation of the last 300 s is 10.",
        ),
        (
            hpa(),
            16,
            sync(15, 16, 1000),
            LimitedBy.MAX,
            "Scaled 16 to 20: inference_queue_depth 1,000 (1 s old) asks for 100 at 10 per replica, limited to 20 "
            "because the maximum is 20.",
        ),
        (
            hpa(),
            2,
            sync(900, 2, 0),
            LimitedBy.MIN,
            "Held at 2: inference_queue_depth 0 (1 s old) asks for 0 at 10 per replica, limited to 2 because the "
            "minimum is 2.",
        ),
        (
            hpa(down=SLOWLY),
            20,
            sync(15, 20, 0),
            LimitedBy.SCALE_DOWN_POLICY,
            "Scaled 20 to 15: inference_queue_depth 0 (1 s old) asks for 0 at 10 per replica, limited to 15 because "
            "the rule is at most 25 % fewer per 60 s.",
        ),
        (
            hpa(up=PODS_OR_PERCENT),
            4,
            sync(15, 4, 200),
            LimitedBy.SCALE_UP_POLICY,
            "Scaled 4 to 5: inference_queue_depth 200 (1 s old) asks for 20 at 10 per replica, limited to 5 because "
            "the rule is at most 1 more per 15 s or 100 % more per 30 s, whichever changes least.",
        ),
        (
            hpa(up=OFF),
            4,
            sync(15, 4, 200),
            LimitedBy.SCALE_UP_DISABLED,
            "Held at 4: inference_queue_depth 200 (1 s old) asks for 20 at 10 per replica, but scaling up is "
            "switched off.",
        ),
        (
            hpa(down=OFF),
            4,
            sync(900, 4, 0),
            LimitedBy.SCALE_DOWN_DISABLED,
            "Held at 4: inference_queue_depth 0 (1 s old) asks for 0 at 10 per replica, but scaling down is "
            "switched off.",
        ),
        (
            hpa(),
            4,
            sync(15, 4, "failed: signal is 9 s old"),
            LimitedBy.MISSING_METRIC,
            "Held at 4: inference_queue_depth could not be read (signal is 9 s old); the size is kept until every "
            "metric can be read.",
        ),
        (
            hpa(metrics=TWO),
            4,
            sync(15, 4, 10, busy="failed: stale"),
            LimitedBy.MISSING_METRIC,
            "Held at 4: inference_queue_depth 10 (1 s old) asks for 1 at 10 per replica, but inference_in_flight "
            "could not be read (stale); the size is kept until every metric can be read.",
        ),
        (
            hpa(metrics=TWO, up={}),
            4,
            sync(15, 4, 60, busy="failed: stale"),
            LimitedBy.NONE,
            "Scaled 4 to 6: inference_queue_depth 60 (1 s old) asks for 6 at 10 per replica. inference_in_flight "
            "could not be read (stale), so until it can the size only grows.",
        ),
        (
            hpa(),
            4,
            sync(15, 25, 0),
            LimitedBy.OUTSIDE_BOUNDS,
            "Scaled 25 to 20: 25 is above the maximum of 20. No metric was asked.",
        ),
        (
            hpa(),
            4,
            sync(15, 0, 0),
            LimitedBy.SWITCHED_OFF_AT_ZERO,
            "Held at 0: the size was set to 0, which switches autoscaling off until it is set to 1 or more.",
        ),
        (
            hpa(metrics=[metric(kind="Value", target="2500m")], up={}),
            4,
            sync(15, 4, "3.5"),
            LimitedBy.NONE,
            "Scaled 4 to 6: inference_queue_depth 3.5 (1 s old) asks for 6 at 2.5 in total.",
        ),
    ],
)
def test_a_decision_is_told_with_its_signal_and_the_rule(
    spec: HpaSpec, start: int, observation: Observation, limited_by: LimitedBy, told: str
) -> None:
    state = settled(spec, replicas=start) if len(spec.metrics) == 1 else HpaState()
    decision, _ = decide(spec, state, observation)
    assert decision.limited_by is limited_by
    assert decision.sentence() == told


def test_every_rule_has_its_sentence_above() -> None:
    cases = test_a_decision_is_told_with_its_signal_and_the_rule.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {case[3] for case in cases} == set(LimitedBy)
