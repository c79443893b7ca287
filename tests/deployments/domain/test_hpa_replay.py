"""What a real HPA decided is what the formula decides, and a replay says where it is not."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from deployments.domain.hpa.replay import NotATrace, read_recording, replay
from deployments.management.commands.hpa_replay import replay_files
from tests.deployments.domain.hpa_cases import QUEUE, metric, policy

TRACES = Path(__file__).resolve().parents[4] / "shared" / "hpa-traces"
RECORDED = sorted(path for path in TRACES.glob("*.json") if path.name != "events.json")

SCALED = {
    "AbleToScale": "True SucceededRescale",
    "ScalingActive": "True ValidMetricFound",
    "ScalingLimited": "True ScaleUpLimit",
}
READY = {
    "AbleToScale": "True ReadyForNewScale",
    "ScalingActive": "True ValidMetricFound",
    "ScalingLimited": "False DesiredWithinRange",
}


def entry(t_s: float, value: object, before: int, after: int, conditions: dict[str, str]) -> dict[str, Any]:
    return {
        "t_s": t_s,
        "metrics": {} if value is None else {QUEUE: value},
        "spec_replicas": before,
        "status_replicas": before,
        "ready_replicas": before,
        "desired_replicas": after,
        "spec_replicas_after": after,
        "conditions": conditions,
    }


TRACE: dict[str, Any] = {
    "scenario": "small",
    "hpa_spec": {"minReplicas": 2, "maxReplicas": 20, "metrics": [metric()]},
    "syncs": [entry(15.0, 60.0, 2, 4, SCALED), entry(30.1, 40.0, 4, 4, READY | {"Other": "True Thing"})],
}
# 40 after 60 is held by the window in a real HPA; this recording says otherwise on purpose.
TRACE["syncs"][1]["conditions"] = {
    "AbleToScale": "True SucceededRescale",
    "ScalingActive": "True ValidMetricFound",
    "ScalingLimited": "False DesiredWithinRange",
    "Other": "True Thing",
}
TRACE["syncs"][1] |= {"desired_replicas": 6, "spec_replicas_after": 6}


@pytest.mark.skipif(
    not RECORDED, reason="the recorded traces are not beside this clone (../shared/hpa-traces)"
)
@pytest.mark.parametrize("path", RECORDED or [TRACES], ids=lambda path: path.stem)
def test_every_decision_of_the_recorded_cluster_is_ours(path: Path) -> None:
    result = replay(read_recording(json.loads(path.read_bytes())))
    assert result.decisions > 0
    assert result.disagreements == ()


def written(tmp_path: Path, document: object, name: str = "trace.json") -> Path:
    path = tmp_path / name
    path.write_text(json.dumps(document))
    return path


def changed(**fields: object) -> dict[str, Any]:
    document = copy.deepcopy(TRACE)
    document["syncs"][1] |= fields
    return document


def test_an_agreeing_recording_passes(tmp_path: Path) -> None:
    lines: list[str] = []
    assert replay_files([written(tmp_path, TRACE)], write=lines.append)
    assert lines[-1] == "2 of 2 decisions agree"


def test_a_different_decision_is_shown_with_its_inputs_and_fails(tmp_path: Path) -> None:
    lines: list[str] = []
    path = written(tmp_path, changed(desired_replicas=5, spec_replicas_after=5))
    assert not replay_files([path], write=lines.append)
    text = "\n".join(lines)
    assert f"{path}: 1 of 2 decisions agree" in text
    assert "t=30.1 s" in text
    assert '"desired_replicas": 5' in text
    assert '"desired_replicas": 6' in text
    assert QUEUE in text
    assert lines[-1] == "1 of 2 decisions agree"


def test_a_recorded_sum_of_floats_is_not_a_thousandth_more() -> None:
    sync = read_recording(changed(metrics={QUEUE: 0.1 + 0.2})).syncs[1]
    assert sync.observation.reading(QUEUE).milli == 300


@pytest.mark.parametrize(
    "fields",
    [
        {"desired_replicas": 7},
        {"spec_replicas_after": 7},
        {"conditions": SCALED | {"ScalingLimited": "True TooManyReplicas"}},
        {"conditions": {}},
    ],
)
def test_size_and_conditions_are_all_compared(fields: dict[str, object]) -> None:
    assert len(replay(read_recording(changed(**fields))).disagreements) == 1


def test_a_size_read_after_the_controllers_write_is_put_back(tmp_path: Path) -> None:
    late = changed(spec_replicas=6, status_replicas=6)
    result = replay(read_recording(late))
    assert (result.agreeing, result.read_late) == (2, 1)
    lines: list[str] = []
    assert replay_files([written(tmp_path, late)], write=lines.append)
    assert "1 recorded after the controller's write" in lines[0]


def test_a_sync_that_asked_no_metric_is_at_least_a_period_before_the_next() -> None:
    """Its recorded time is a guess; taken as it is, the policy below would still count its scale-up."""
    behavior = {"scaleUp": {"policies": [policy("Pods", 2, 15)]}}
    able = {"AbleToScale": "True SucceededRescale"}
    document = {
        "hpa_spec": TRACE["hpa_spec"] | {"behavior": behavior},
        "syncs": [entry(15.7, None, 1, 2, able), entry(30.4, 90.0, 2, 4, SCALED)],
    }
    assert replay(read_recording(document)).disagreements == ()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{}", "no hpa_spec and syncs"),
        (b"3", "no hpa_spec and syncs"),
        (json.dumps(TRACE | {"syncs": []}).encode(), "at least one entry"),
        (json.dumps(TRACE | {"syncs": [3]}).encode(), "syncs[0] is not an object"),
        (json.dumps(TRACE | {"hpa_spec": {}}).encode(), "spec.maxReplicas"),
        (json.dumps(changed(spec_replicas="2")).encode(), "syncs[1].spec_replicas"),
        (json.dumps(changed(spec_replicas=-2)).encode(), "syncs[1]"),
        (json.dumps(changed(t_s="soon")).encode(), "syncs[1].t_s"),
        (json.dumps(changed(metrics=[])).encode(), "syncs[1].metrics"),
        (json.dumps(changed(metrics={QUEUE: "lots"})).encode(), "syncs[1]"),
        (json.dumps({**TRACE, "syncs": [{"t_s": 1}]}).encode(), "syncs[0] has no metrics"),
    ],
)
def test_a_file_that_is_no_recording_is_named_and_fails(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    lines: list[str] = []
    assert not replay_files([written(tmp_path, TRACE), path], write=lines.append)
    assert any(line.startswith(f"{path}: not replayed") and told in line for line in lines), lines
    assert lines[-1] == "2 of 2 decisions agree"


def test_a_file_that_is_not_there_is_named_and_fails(tmp_path: Path) -> None:
    lines: list[str] = []
    assert not replay_files([tmp_path / "none.json"], write=lines.append)
    assert "cannot be read" in lines[0]


def test_a_list_of_events_is_skipped_by_name_and_alone_proves_nothing(tmp_path: Path) -> None:
    events = written(tmp_path, [{"reason": "SuccessfulRescale"}], "events.json")
    lines: list[str] = []
    assert replay_files([written(tmp_path, TRACE), events], write=lines.append)
    assert f"{events}: skipped" in lines[1]
    assert not replay_files([events], write=lines.append)


def test_a_list_is_no_recording() -> None:
    with pytest.raises(NotATrace):
        read_recording([])
