"""P6: from a committed job row to the worker's first line, through the real dispatcher, broker and worker, idle."""

import json
import sys

from tests.benchmarks.accounting import CpuOf
from tests.benchmarks.installation import installation, row
from tests.benchmarks.result import Row, median, moved, percentile, quartiles

ROUNDS, JOBS = 5, 10
P50_MS, P99_MS = 25.0, 150.0


def run(*, full: bool) -> list[Row]:
    jobs = 6 * JOBS if full else JOBS
    with installation() as place:
        place.start(sys.executable, "-m", "tests.benchmarks.enqueue_to_start_floor", name="floor").says(
            "waiting"
        )
        place.start_row(row("dispatcher"))
        worker = place.start_row(row("worker-optimize")).says("ready")
        used = CpuOf.trees([worker.pid])
        measured = json.loads(
            place.ask("-m", "tests.benchmarks.enqueue_to_start_child", str(ROUNDS), str(jobs))
        )
        print(f"   worker: {used.since() / (ROUNDS * jobs) * 1000:.0f} ms CPU per job, its end included")
    ours, floor = measured["ours"], measured["floor"]
    floors = [median(part) for part in floor]
    return [
        _row("enqueue_p50", "p50", [median(part) for part in ours], floors, P50_MS, n=jobs),
        _row(
            "enqueue_p99",
            f"p99 (the slowest of {jobs} in a round)" if jobs < 100 else "p99",
            [percentile(part, 0.99) for part in ours],
            floors,
            P99_MS,
            n=jobs,
        ),
    ]


def _row(name: str, what: str, values: list[float], floors: list[float], at_most_ms: float, *, n: int) -> Row:
    void = moved(floors)
    note = f"; void, the floor moved from {floors[0]:.2f} to {floors[-1]:.2f} ms" if void else ""
    return Row(
        id="P6",
        name=name,
        metric=f"committed row to the worker's first line, {what}{note}",
        value=median(values),
        unit="ms",
        baseline=median(floors),
        ratio=median(values) / median(floors),
        target=f"<= {at_most_ms:g} ms",
        met=None if void else median(values) <= at_most_ms,
        n=n * len(values),
        spread=quartiles(values),
    )
