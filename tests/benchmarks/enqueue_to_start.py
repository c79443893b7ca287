"""P6: from a committed job row to the worker's first line, through the real dispatcher, broker and worker, idle."""

import json
import sys

from tests.benchmarks.accounting import CpuOf
from tests.benchmarks.installation import installation, row
from tests.benchmarks.result import Row, median, moved, percentile, quartiles

ROUNDS, JOBS = 5, 20
P50_MS, P99_MS = 25.0, 150.0
CELERY = (
    *(sys.executable, "-m", "celery", "-A", "tests.benchmarks.enqueue_to_start_celery", "worker"),
    *("--concurrency", "1", "--loglevel", "info", "--without-gossip", "--without-mingle"),
)


def run(*, full: bool) -> list[Row]:
    jobs = 3 * JOBS if full else JOBS
    with installation() as place:
        place.start(sys.executable, "-m", "tests.benchmarks.enqueue_to_start_floor", name="floor").says(
            "waiting"
        )
        place.start(*CELERY, name="celery").says("ready")
        place.start_row(row("dispatcher"))
        worker = place.start_row(row("worker-optimize")).says("ready")
        used = CpuOf.trees([worker.pid])
        measured = json.loads(
            place.ask("-m", "tests.benchmarks.enqueue_to_start_child", str(ROUNDS), str(jobs))
        )
        print(f"   worker: {used.since() / (ROUNDS * jobs) * 1000:.0f} ms CPU per job, its end included")
    ours, floors = measured["ours"], [median(part) for part in measured["floor"]]
    rows = []
    for what, share, at_most_ms in (("p50", 0.5, P50_MS), ("p99", 0.99, P99_MS)):
        rows.append(_row(what, share, ours, floors, at_most_ms))
        rows.append(_beside(what, rows[-1], peer=percentile(_together(measured["peer"]), share)))
    return rows


def _row(what: str, share: float, rounds: list[list[float]], floors: list[float], at_most_ms: float) -> Row:
    """The percentile of all jobs together; a tail is not what the rounds' own tails have in their middle."""
    void = moved(floors)
    note = f"; void, the floor moved from {floors[0]:.2f} to {floors[-1]:.2f} ms" if void else ""
    values = _together(rounds)
    value = percentile(values, share)
    return Row(
        metric=f"committed row to the worker's first line, {what} of all jobs{note}",
        value=value,
        unit="ms",
        baseline=median(floors),
        ratio=value / median(floors),
        target=f"<= {at_most_ms:g} ms",
        met=None if void else value <= at_most_ms,
        n=len(values),
        spread=quartiles([percentile(part, share) for part in rounds]),
    )


def _beside(what: str, ours: Row, *, peer: float) -> Row:
    """The peer has no lease, no fence and no event to write: that is what the ratio is the price of."""
    return Row(
        metric=f"the same over Celery alone, {what}",
        value=ours.value,
        unit="ms",
        baseline=peer,
        ratio=ours.value / peer,
        n=ours.n,
        spread=ours.spread,
    )


def _together(rounds: list[list[float]]) -> list[float]:
    return [value for part in rounds for value in part]
