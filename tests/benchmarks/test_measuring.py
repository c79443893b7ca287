"""What a benchmark says follows from what it measured: no long runs here, only their arithmetic."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.benchmarks import __main__, dynamic_batching, rolling_update
from tests.benchmarks.dynamic_batching import Arm
from tests.benchmarks.generator import Answers, Load
from tests.benchmarks.optimizer_speedup_rows import Speed, against_peer
from tests.benchmarks.result import Row, percentile


@pytest.mark.parametrize("name", __main__.BENCHMARKS)
def test_each_benchmark_can_be_loaded(name: str) -> None:
    """In a process of its own: one brings settings of its own."""
    subprocess.run([sys.executable, "-c", f"import tests.benchmarks.{name}"], check=True)


@pytest.mark.parametrize(
    ("count", "share", "rank"),
    [(100, 0.99, 99), (50, 0.99, 50), (1000, 0.999, 999), (1, 0.5, 1), (4, 0.5, 2)],
)
def test_a_percentile_is_of_the_nearest_rank(count: int, share: float, rank: int) -> None:
    assert percentile(range(count, 0, -1), share) == rank


def _answers(latency_ms: float, *, begin: float = 0.0, seconds: float = 10.0) -> Answers:
    due = np.arange(begin, begin + seconds, 0.01)
    same = np.full(due.size, latency_ms)
    ok = np.full(due.size, 200)
    return Answers(due=due, latency_ms=same, late_ms=same, status=ok, seconds=seconds, cpu_s=1.0)


@pytest.fixture
def arm() -> Arm:
    load = Load(urls=(), body=b"", headers={}, seconds=1)
    return Arm(load=load, most_per_s=1000, found=[], last=_answers(1))


@pytest.mark.parametrize("limit_per_s", [60, 200, 700, 5000])
def test_a_rate_that_is_found_was_measured_to_hold(
    arm: Arm, monkeypatch: pytest.MonkeyPatch, limit_per_s: float
) -> None:
    held: list[float] = []

    def drive(load: Load) -> Answers:
        holds = load.rate_per_s <= limit_per_s
        held.extend([load.rate_per_s] if holds else [])
        return _answers(1 if holds else 1000)

    monkeypatch.setattr(dynamic_batching, "drive", drive)
    for _ in range(3):
        held.clear()
        arm.search(bound_ms=20, seconds=1)
        assert arm.found[-1] == max(held)
    assert arm.found[-1] >= 0.4 * min(limit_per_s, 1000)


def test_a_replica_that_holds_no_rate_is_an_error(arm: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic_batching, "drive", lambda load: _answers(1000))
    with pytest.raises(RuntimeError, match="p99 does not stay below"):
        arm.search(bound_ms=20, seconds=1)


@pytest.mark.parametrize(("after_ms", "met"), [(11.0, True), (13.0, None)])
def test_a_rolling_update_is_void_where_the_steady_state_moved(after_ms: float, met: bool | None) -> None:
    moving = _answers(15, begin=10)
    row = rolling_update._tail(_answers(10), moving, _answers(after_ms, begin=20))
    assert (row.met, row.value, row.spread) == (met, 15, (15, 15))
    assert json.loads(json.dumps(row.to_json(id="S4", name="rolling_update")))["met"] is met
    assert ("void" in row.metric) == (met is None)


def _speed(value: float, *, noise: float = 0.01) -> Speed:
    return Speed(
        size=1,
        first_ms=value,
        second_ms=1,
        value=value,
        low=value - 0.01,
        high=value + 0.01,
        n=20,
        noise=noise,
    )


@pytest.mark.parametrize(
    ("value", "noise", "met"),
    [
        (1.0, 0.01, True),
        (0.9, 0.01, False),
        (0.9, 0.05, None),
        (0.965, 0.001, None),
        (1.5, 0.3, None),
        (2.5, 0.3, True),
    ],
)
def test_a_mark_is_met_missed_or_lost_in_the_noise(value: float, noise: float, met: bool | None) -> None:
    assert _speed(value, noise=noise).reaches(0.97) is met


@pytest.mark.parametrize(
    ("speedup", "lost", "met", "judged"),
    [
        (1.0, 0.0, True, True),
        (0.8, 0.0, False, True),
        (2.0, 0.02, False, True),  # faster, for more loss
        (0.8, -0.02, None, False),  # slower, for less
        (1.1, -0.02, True, True),
    ],
)
def test_a_peer_is_a_mark_at_the_same_loss(
    speedup: float, lost: float, met: bool | None, judged: bool
) -> None:
    accuracy = {
        "measure": "accuracy",
        "parent_accuracy": {"value": 0.9},
        "variant_accuracy": {"value": 0.9 - lost},
        "loss": {"value": lost, "low": lost - 0.005, "high": lost + 0.005},
    }
    row = against_peer("int8-static", _speed(speedup), accuracy)
    assert (row.met, bool(row.target)) == (met, judged)


def test_what_could_not_be_had_is_a_row_without_a_value() -> None:
    row = Row(metric="int8-static: refused", value=None, unit="ms")
    assert "refused: -" in row.line(id="S5", name="optimizer_speedup")


def test_a_benchmark_that_fails_is_told_and_the_others_are_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*, full: bool) -> list[Row]:
        raise ZeroDivisionError

    found = {
        "tests.benchmarks.list_page": broken,
        "tests.benchmarks.scrape": lambda *, full: [Row(metric="CPU", value=1, unit="ms")],
    }
    monkeypatch.setattr(__main__, "BENCHMARKS", {"list_page": "P1", "scrape": "P10"})
    monkeypatch.setattr(__main__, "import_module", lambda path: SimpleNamespace(run=found[path]))
    monkeypatch.setattr("tests.servers.stop", lambda: None)
    monkeypatch.setattr("sys.argv", ["benchmarks"])
    monkeypatch.chdir(tmp_path)
    assert __main__.main() == 1
    (entry,) = json.loads((tmp_path / "bench.json").read_text())
    assert (entry["id"], entry["name"], entry["metric"]) == ("P10", "scrape", "CPU")
    told = capsys.readouterr().err
    assert "ZeroDivisionError" in told
    assert "not measured, because of an error (above): list_page" in told
