"""The rules of a HorizontalPodAutoscaler, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.domain.hpa import LOCAL, Controller, Decision, HpaState, LimitedBy, decide
from deployments.domain.hpa.state import Remembered
from tests.deployments.domain.hpa_cases import BUSY, QUEUE, hpa, metric, policy, run, settled, sizes, sync


def conditions_of(decision: Decision) -> dict[str, str]:
    return {condition.type: str(condition) for condition in decision.conditions}


class TestAverageValue:
    @pytest.mark.parametrize(
        ("replicas", "total", "asked"),
        [
            (4, 36, 4),  # 0.9 exactly: still inside
            (4, "35.999", 4),  # ceil(3.6)
            (4, 30, 3),
            (4, 44, 4),  # 1.1 exactly: still inside
            (4, "44.001", 5),
            (10, 91, 10),
            (10, 89, 9),
            (4, 0, 0),
            (1, 1000, 100),
        ],
    )
    def test_it_asks_for_the_total_shared_by_the_target_outside_the_tolerance(
        self, replicas: int, total: object, asked: int
    ) -> None:
        decision, _ = decide(hpa(least=1), HpaState(), sync(0, replicas, total))
        assert decision.raw_recommendation == asked

    def test_replicas_that_are_not_ready_count_as_being_there(self) -> None:
        decision, _ = decide(hpa(), HpaState(), sync(0, 8, 80, status=8, ready=2))
        assert (decision.raw_recommendation, decision.desired_replicas) == (8, 8)

    def test_the_tolerance_looks_at_the_replicas_there_are_not_at_those_asked_for(self) -> None:
        decision, _ = decide(hpa(), HpaState(), sync(0, 8, 43, status=4))
        assert decision.raw_recommendation == 4

    def test_with_no_replica_there_yet_the_total_alone_decides(self) -> None:
        decision, _ = decide(hpa(), HpaState(), sync(0, 2, 30, status=0))
        assert decision.raw_recommendation == 3

    def test_an_absurd_total_asks_for_no_more_than_a_cluster_can_count(self) -> None:
        spec = hpa(metrics=[metric(target="1m")])
        decision, _ = decide(spec, HpaState(), sync(0, 2, "9E"))
        assert (decision.raw_recommendation, decision.desired_replicas) == (2**31 - 1, 4)


class TestValue:
    SPEC = hpa(least=1, metrics=[metric(kind="Value", target="100")])

    @pytest.mark.parametrize(
        ("total", "ready", "asked"), [(110, 4, 4), (150, 4, 6), (150, 2, 3), (50, 4, 2), (150, 0, 0)]
    )
    def test_the_ratio_multiplies_the_ready_replicas(self, total: int, ready: int, asked: int) -> None:
        decision, _ = decide(self.SPEC, HpaState(), sync(0, 4, total, ready=ready))
        assert decision.raw_recommendation == asked

    def test_without_any_replica_to_count_the_metric_fails(self) -> None:
        decision, _ = decide(self.SPEC, HpaState(), sync(0, 4, 150, status=0))
        assert decision.limited_by is LimitedBy.MISSING_METRIC
        assert decision.desired_replicas == 4

    def test_from_zero_the_ratio_itself_is_asked_for(self) -> None:
        spec = hpa(least=0, metrics=[metric(kind="Value", target="100")])
        decision, _ = decide(spec, HpaState(), sync(0, 0, 250))
        assert decision.desired_replicas == 3


class TestTolerance:
    def test_each_direction_can_have_its_own(self) -> None:
        spec = hpa(up={"tolerance": "0.5"}, down={"tolerance": "0", "stabilizationWindowSeconds": 0})
        state = settled(spec, replicas=10)
        assert decide(spec, state, sync(15, 10, 150))[0].limited_by is LimitedBy.TOLERANCE
        assert decide(spec, state, sync(15, 10, "150.001"))[0].desired_replicas == 16
        assert decide(spec, state, sync(15, 10, 90))[0].desired_replicas == 9

    def test_it_is_the_float_that_kubernetes_makes_of_it(self) -> None:
        """118m and 570m are a hair more than the nearest floats, so the edge of the band belongs to it."""
        spec = hpa(
            up={"tolerance": "118m"}, down={"tolerance": "570m", "stabilizationWindowSeconds": 0}, least=1
        )
        state = settled(spec, replicas=10)
        assert decide(spec, state, sync(15, 10, "111.8"))[0].desired_replicas == 10
        assert decide(spec, state, sync(15, 10, 43))[0].desired_replicas == 10

    def test_one_direction_left_alone_keeps_the_controllers(self) -> None:
        spec = hpa(up={"tolerance": "0.5"})
        assert decide(spec, settled(spec, replicas=10), sync(15, 10, 91))[0].raw_recommendation == 10

    def test_the_controller_can_have_another(self) -> None:
        wide = Controller(tolerance=0.3)
        assert decide(hpa(), HpaState(), sync(0, 10, 130), controller=wide)[0].raw_recommendation == 10

    def test_it_is_not_blamed_where_it_changes_nothing(self) -> None:
        assert decide(hpa(), settled(hpa(), replicas=4), sync(15, 4, 38))[0].limited_by is LimitedBy.NONE


class TestSeveralMetrics:
    SPEC = hpa(metrics=[metric(), metric(BUSY, target="5")], down={"stabilizationWindowSeconds": 0})

    def test_the_largest_wins(self) -> None:
        decision, _ = decide(self.SPEC, settled(self.SPEC, replicas=4), sync(15, 4, 20, busy=30))
        assert (decision.winner, decision.raw_recommendation) == (BUSY, 6)
        assert [vote.replicas for vote in decision.metrics] == [2, 6]

    def test_a_failed_one_lets_the_others_scale_up(self) -> None:
        lost = sync(15, 4, "failed: stale", busy=30)
        decision, _ = decide(self.SPEC, settled(self.SPEC, replicas=4), lost)
        assert decision.desired_replicas == 6
        assert conditions_of(decision)["ScalingActive"] == "True ValidMetricFound"

    def test_a_failed_one_does_not_stand_in_the_way_of_staying(self) -> None:
        lost = sync(15, 4, 40, busy="failed: stale")
        decision, state = decide(self.SPEC, settled(self.SPEC, replicas=4), lost)
        assert (decision.desired_replicas, decision.limited_by) == (4, LimitedBy.NONE)
        assert conditions_of(decision)["ScalingActive"] == "True ValidMetricFound"
        assert state.recommendations[-1] == Remembered(4, 15)

    def test_a_failed_one_blocks_scaling_down(self) -> None:
        lost = sync(15, 4, 10, busy="failed: stale")
        before = settled(self.SPEC, replicas=4)
        decision, state = decide(self.SPEC, before, lost)
        assert decision.desired_replicas == 4
        assert decision.limited_by is LimitedBy.MISSING_METRIC
        assert decision.raw_recommendation is None
        assert conditions_of(decision)["ScalingActive"] == "False FailedGetExternalMetric"
        assert state.recommendations == before.recommendations


class TestMissingMetric:
    def test_the_size_is_kept_and_nothing_is_remembered(self) -> None:
        spec = hpa()
        before = settled(spec, replicas=10)
        decision, after = decide(spec, before, sync(15, 10, "failed: 500"))
        assert (decision.desired_replicas, decision.reported_replicas) == (10, 10)
        assert conditions_of(decision) == {
            "AbleToScale": "True SucceededGetScale",
            "ScalingActive": "False FailedGetExternalMetric",
            "ScalingLimited": "False DesiredWithinRange",
        }
        assert after.recommendations == before.recommendations

    def test_a_metric_nobody_measured_has_failed(self) -> None:
        observation = replace(sync(0, 4, 1), readings={})
        assert decide(hpa(), HpaState(), observation)[0].limited_by is LimitedBy.MISSING_METRIC

    def test_a_first_sync_without_metrics_reports_nothing_and_keeps_the_size(self) -> None:
        decision, _ = decide(hpa(), HpaState(), sync(0, 4, "failed: x"))
        assert (decision.desired_replicas, decision.reported_replicas) == (4, 0)


class TestOutsideTheBounds:
    @pytest.mark.parametrize(("replicas", "size"), [(25, 20), (1, 2)])
    def test_the_size_comes_back_at_once_and_no_metric_is_asked(self, replicas: int, size: int) -> None:
        decision, state = decide(hpa(up={}, down={}), HpaState(), sync(0, replicas, "failed: x"))
        assert (decision.desired_replicas, decision.limited_by) == (size, LimitedBy.OUTSIDE_BOUNDS)
        assert conditions_of(decision) == {"AbleToScale": "True SucceededRescale"}
        assert decision.metrics == ()
        assert [event.replicas for event in state.scale_ups + state.scale_downs] == [abs(size - replicas)]

    def test_the_size_it_was_found_at_still_holds_the_window(self) -> None:
        decision = run(hpa(), [30, 30], start=25)[1]
        assert (decision.stabilized_recommendation, decision.desired_replicas) == (25, 20)
        assert decision.limited_by is LimitedBy.STABILIZATION
        assert conditions_of(decision)["ScalingLimited"] == "True TooManyReplicas"


class TestZero:
    def test_zero_replicas_switch_autoscaling_off(self) -> None:
        decision, state = decide(hpa(least=1), HpaState(), sync(0, 0, 500))
        assert (decision.desired_replicas, decision.reported_replicas) == (0, 0)
        assert decision.limited_by is LimitedBy.SWITCHED_OFF_AT_ZERO
        assert conditions_of(decision)["ScalingActive"] == "False ScalingDisabled"
        assert decide(hpa(least=1), state, sync(15, 1, 500))[0].desired_replicas == 4

    def test_with_a_minimum_of_zero_they_do_not(self) -> None:
        spec = hpa(least=0)
        assert sizes(run(spec, [0, 25], start=0)) == [0, 3]

    def test_a_percentage_alone_cannot_leave_zero(self) -> None:
        spec = hpa(least=0, up={"policies": [policy("Percent", 100, 15)]})
        decision = run(spec, [25], start=0)[0]
        assert (decision.desired_replicas, decision.limited_by) == (0, LimitedBy.SCALE_UP_POLICY)

    def test_an_idle_deployment_goes_to_zero_after_its_window(self) -> None:
        spec = hpa(least=0, down={"stabilizationWindowSeconds": 30})
        assert sizes(run(spec, [10, 0, 0, 0], start=1)) == [1, 1, 0, 0]


class TestClassic:
    def test_a_sync_doubles_at_most_but_reaches_four(self) -> None:
        decisions = run(hpa(least=1), [1000] * 5, start=1)
        assert sizes(decisions) == [4, 8, 16, 20, 20]
        assert [decision.limited_by for decision in decisions] == [LimitedBy.SCALE_UP_POLICY] * 3 + [
            LimitedBy.MAX
        ] * 2

    def test_the_highest_recommendation_of_five_minutes_holds(self) -> None:
        decisions = run(hpa(), [100] * 4 + [0] * 21, start=10)
        # The last high vote is at 60 s. At 360 s it is exactly as old as the window, and still counts.
        assert sizes(decisions)[4:] == [10] * 20 + [2]
        assert decisions[4].limited_by is LimitedBy.STABILIZATION
        assert decisions[-1].limited_by is LimitedBy.MIN

    def test_the_controller_can_have_another_window(self) -> None:
        assert sizes(run(hpa(), [100, 0, 0], start=10, controller=Controller(down_window_s=20))) == [
            10,
            10,
            2,
        ]

    def test_an_old_wish_still_scales_up(self) -> None:
        assert sizes(run(hpa(), [1000, 40, 40], start=2)) == [4, 8, 16]


class TestPolicies:
    def test_the_defaults_of_a_behavior_add_four_or_double(self) -> None:
        assert sizes(run(hpa(up={}), [1000] * 3, start=2)) == [6, 12, 20]

    def test_the_smallest_change_wins_where_that_is_asked_for(self) -> None:
        up = {"selectPolicy": "Min", "policies": [policy("Pods", 1, 15), policy("Percent", 100, 15)]}
        down = {
            "selectPolicy": "Min",
            "stabilizationWindowSeconds": 0,
            "policies": [policy("Pods", 1, 15), policy("Percent", 50, 15)],
        }
        assert sizes(run(hpa(up=up, down=down), [500, 500, 0, 0], start=10)) == [11, 12, 11, 10]

    def test_a_period_counts_from_the_size_at_its_start(self) -> None:
        up = {"policies": [policy("Pods", 2, 60)]}
        assert sizes(run(hpa(up=up), [500] * 9, start=2)) == [4, 4, 4, 4, 6, 6, 6, 6, 8]

    def test_what_came_and_went_within_the_period_is_counted_against_each_other(self) -> None:
        up = {"policies": [policy("Pods", 4, 60)]}
        down = {"stabilizationWindowSeconds": 0, "policies": [policy("Percent", 100, 15)]}
        # +4 at 15 s, -4 at 30 s: at 45 s the period started from 4, so 8 are allowed again.
        assert sizes(run(hpa(up=up, down=down), [500, 40, 500], start=4)) == [8, 4, 8]

    @pytest.mark.parametrize(
        ("start", "percent", "size"),
        [(25, 120, 56), (10, 50, 15), (3, 10, 4), (7, 300, 28)],
    )
    def test_percentages_up_are_rounded_up_in_binary_fractions(
        self, start: int, percent: int, size: int
    ) -> None:
        up = {"policies": [policy("Percent", percent, 15)]}
        assert sizes(run(hpa(most=100, up=up), [5000], start=start)) == [size]

    @pytest.mark.parametrize(
        ("start", "percent", "size"), [(20, 10, 18), (9, 10, 8), (20, 25, 15), (20, 80, 3), (8, 200, 2)]
    )
    def test_percentages_down_are_cut_off_in_binary_fractions(
        self, start: int, percent: int, size: int
    ) -> None:
        down = {"stabilizationWindowSeconds": 0, "policies": [policy("Percent", percent, 60)]}
        assert sizes(run(hpa(down=down), [0], start=start)) == [size]

    def test_a_direction_can_be_switched_off(self) -> None:
        spec = hpa(up={"selectPolicy": "Disabled"}, down={"selectPolicy": "Disabled"})
        state = settled(spec, replicas=10)
        up, _ = decide(spec, state, sync(15, 10, 500))
        assert (up.desired_replicas, up.limited_by) == (10, LimitedBy.SCALE_UP_DISABLED)
        down, _ = decide(spec, state, sync(900, 10, 0))
        assert (down.desired_replicas, down.limited_by) == (10, LimitedBy.SCALE_DOWN_DISABLED)
        assert conditions_of(down)["ScalingLimited"] == "True ScaleDownLimit"

    def test_an_old_scale_event_is_written_over_one_at_a_time(self) -> None:
        spec = hpa(up={"policies": [policy("Pods", 1, 15)]})
        old = tuple(Remembered(1, float(at)) for at in (1, 2, 3))
        state = replace(settled(spec, replicas=4, at_s=0), scale_ups=old)
        _, after = decide(spec, state, sync(100, 4, 500))
        assert after.scale_ups == (*old[:2], Remembered(1, 100.0))

    def test_without_a_behavior_no_event_is_kept(self) -> None:
        assert decide(hpa(), HpaState(), sync(0, 2, 90))[1].scale_ups == ()


class TestWindows:
    def test_a_window_up_takes_the_lowest_recommendation(self) -> None:
        spec = hpa(up={"stabilizationWindowSeconds": 60})
        decisions = run(spec, [40] + [100] * 4 + [90], start=4)
        # 40 at 15 s is out of the window at 75 s: exactly as old as the window no longer counts.
        assert sizes(decisions) == [4, 4, 4, 4, 8, 9]
        assert decisions[1].limited_by is LimitedBy.STABILIZATION
        assert conditions_of(decisions[1])["AbleToScale"] == "True ScaleUpStabilized"

    def test_the_size_moves_only_as_far_as_the_whole_window_agrees(self) -> None:
        spec = hpa(down={"stabilizationWindowSeconds": 30})
        assert sizes(run(spec, [100, 80, 60, 20, 20, 20], start=10)) == [10, 10, 8, 6, 2, 2]

    def test_a_window_down_of_zero_follows_at_once(self) -> None:
        assert sizes(run(hpa(down={"stabilizationWindowSeconds": 0}), [100, 30], start=10)) == [10, 3]

    def test_a_window_left_out_is_the_controllers(self) -> None:
        assert sizes(run(hpa(down={}), [100] + [30] * 20, start=10)) == [10] * 20 + [3]

    def test_times_that_differ_by_a_rounding_error_are_the_same(self) -> None:
        spec = hpa(up={"policies": [policy("Pods", 2, 15)]})
        _, state = decide(spec, settled(spec, replicas=2), sync(466.93, 2, 500))
        assert decide(spec, state, sync(481.93, 4, 500))[0].desired_replicas == 6

    def test_the_memory_does_not_grow_with_time(self) -> None:
        spec, state = hpa(down={"stabilizationWindowSeconds": 60}), HpaState()
        for index in range(500):
            _, state = decide(spec, state, sync(index * 2.0, 4, 40), controller=LOCAL)
        assert len(state.recommendations) <= 33


class TestConditions:
    def test_a_size_that_changes_is_a_rescale(self) -> None:
        decision, state = decide(hpa(), HpaState(), sync(0, 2, 95))
        assert conditions_of(decision) == {
            "AbleToScale": "True SucceededRescale",
            "ScalingActive": "True ValidMetricFound",
            "ScalingLimited": "True ScaleUpLimit",
        }
        assert decision.changed
        assert state.reported_replicas == 4

    def test_conditions_stay_until_something_changes_them(self) -> None:
        spec = hpa()
        _, state = decide(spec, HpaState(), sync(0, 2, 95))
        decision, _ = decide(spec, state, sync(15, 25, "failed: x"))
        assert conditions_of(decision) == {
            "AbleToScale": "True SucceededRescale",
            "ScalingActive": "True ValidMetricFound",
            "ScalingLimited": "True ScaleUpLimit",
        }


def test_the_log_entry_of_a_decision_names_the_signal_its_age_and_the_rule() -> None:
    entry = decide(hpa(), HpaState(), sync(0, 2, 95))[0].to_json()
    assert entry["limited_by"] == "scale_up_policy"
    assert entry["metrics"] == [
        {
            "name": QUEUE,
            "value": "95",
            "age_s": 1.0,
            "target": "10",
            "target_type": "AverageValue",
            "replicas": 10,
            "exact": 10,
            "error": None,
        }
    ]
