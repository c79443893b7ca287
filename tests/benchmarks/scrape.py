"""P10: 2,000 replicas scraped, read, counted and stored, against a client that does nothing but fetch and filter.

2 % of the replicas drop the connection and 1 % never answer. The beat is the collector's own 2 s, which is
harder than the 15 s of the table in every respect but one: a window then holds more scrapes, so `--full` also
measures the beat of 15 s, where every scrape fills a window of its own.
"""

import json
import sys

from tests.benchmarks.accounting import CpuOf
from tests.benchmarks.installation import Installation, Running, installation
from tests.benchmarks.result import Row, compared, median, quartiles
from tests.benchmarks.scrape_child import REPLICAS

ROUNDS = 5
BEAT_S, SECONDS = 2.0, 6.0
SLOW_BEAT_S = 15.0
SOAK_S = 600.0
DEAD, SLOW = 0.02, 0.01


def run(*, full: bool) -> list[Row]:
    with installation() as place:
        exporter = _exporter(place)
        port = int(exporter.log.read_text())
        place.ask("-m", "tests.benchmarks.scrape_child", "seed", "0", "0", "0")
        rows = _rows(place, exporter, beat_s=BEAT_S, seconds=SECONDS)
        if full:
            rows += _rows(place, exporter, beat_s=SLOW_BEAT_S, seconds=2 * SLOW_BEAT_S)
            rows.append(_soak(place, port))
    return rows


def _exporter(place: Installation) -> Running:
    argv = ("-m", "tests.deployments.telemetry.fake_exporter", "--targets", str(REPLICAS))
    shares = ("--dead", str(DEAD), "--slow", str(SLOW))
    return place.start(sys.executable, *argv, *shares, name="exporter").says("\n")


def _ask(place: Installation, what: str, port: int, beat_s: float, seconds: float) -> dict[str, float]:
    found: dict[str, float] = json.loads(
        place.ask("-m", "tests.benchmarks.scrape_child", what, str(port), str(beat_s), str(seconds))
    )
    return found


def _rows(place: Installation, exporter: Running, *, beat_s: float, seconds: float) -> list[Row]:
    port = int(exporter.log.read_text())
    floors, lines, stored, exported = [], [], [], []
    for _ in range(ROUNDS):
        floors.append(_ask(place, "floor", port, beat_s, seconds))
        postgres, pages = CpuOf.trees([place.servers.postgres_pid]), CpuOf.trees([exporter.pid])
        lines.append(_ask(place, "line", port, beat_s, seconds))
        stored.append(postgres.since())
        exported.append(pages.since())
    attempts = int(median([one["attempts"] for one in lines]))
    share = sum(one["failed"] for one in lines) / sum(one["attempts"] for one in lines)
    print(
        f"   beat {beat_s:g} s: {attempts} scrapes a round, {share:.1%} failed, "
        f"{lines[-1]['rows']:.0f} windows stored, not counted: Postgres {median(stored):.2f} s and "
        f"the exporter {median(exported):.2f} s CPU a round, its warm-up included"
    )
    late = [one["late_p99_s"] for one in lines]
    memory = [one["memory_mib"] for one in lines]
    return [
        compared(
            metric=f"collector's CPU per scrape, storing included, beat {beat_s:g} s",
            unit="ms",
            values=[one["cpu_ms"] for one in lines],
            floor=[one["cpu_ms"] for one in floors],
            at_most=2.5,
            n=attempts,
        ),
        Row(
            metric=f"lateness p99, beat {beat_s:g} s",
            value=median(late),
            unit="s",
            baseline=median([one["late_p99_s"] for one in floors]),
            target="<= 1 s",
            met=median(late) <= 1.0,
            n=attempts * len(late),
            spread=quartiles(late),
        ),
        Row(
            metric=f"unique memory of the collector, beat {beat_s:g} s",
            value=median(memory),
            unit="MiB",
            n=len(memory),
            spread=quartiles(memory),
        ),
    ]


def _soak(place: Installation, port: int) -> Row:
    """Memory over ten minutes, after the first scrapes have filled what is kept per replica."""
    found = _ask(place, "line", port, BEAT_S, SOAK_S)
    return Row(
        metric=f"growth of the collector over {SOAK_S / 60:g} minutes",
        value=found["grown_mib"],
        unit="MiB",
        baseline=found["memory_mib"],
        ratio=found["grown_mib"] / found["memory_mib"],
        target="<= 0.1x",
        met=found["grown_mib"] <= 0.1 * found["memory_mib"],
        n=int(found["attempts"]),
    )
