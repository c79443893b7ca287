"""S4: requests at half of the measured maximum through an update, the kill of a replica and a rollback.

One open loop goes through all of it, so that nothing is sent less because something stalls. The parts before the
first change and after the last are the steady state; what lies between is judged against both together.
"""

import os
import signal
import time
from dataclasses import replace

import numpy as np

from tests.benchmarks.endpoint import UNBATCHED
from tests.benchmarks.generator import Answers, Load, drive, driving
from tests.benchmarks.model import request
from tests.benchmarks.product_endpoint import Served, served
from tests.benchmarks.result import Row, moved, percentile, quartiles

REPLICAS = 4
"""With two, the kill leaves one, whose limit is what is sent: that would measure the missing headroom."""
STEADY_S, SLICE_S, FULL_FACTOR = 20.0, 2.0, 3
MOST_S = 600.0
MAXIMUM_S, WARM_UP_S = 3.0, 2.0
CLIENTS = 16
SPEC = {
    "batching": UNBATCHED.to_json(),
    "autoscaling": {
        "minReplicas": REPLICAS,
        "maxReplicas": REPLICAS,
        "metrics": [
            {
                "type": "External",
                "external": {
                    "metric": {"name": "inference_queue_depth"},
                    "target": {"type": "AverageValue", "averageValue": "10"},
                },
            }
        ],
    },
}


def run(*, full: bool) -> list[Row]:
    factor = FULL_FACTOR if full else 1
    body, headers = request()
    with served(SPEC) as endpoint:
        endpoint.until_ready(REPLICAS)
        second = endpoint.add_revision(SPEC)
        load = Load(urls=(endpoint.url,), body=body, headers=headers, seconds=MAXIMUM_S, clients=CLIENTS)
        drive(replace(load, seconds=WARM_UP_S))
        most = drive(load).per_s
        with driving(replace(load, rate_per_s=most / 2, seconds=MOST_S)) as going:
            began = time.monotonic()
            time.sleep(factor * STEADY_S)
            changed = time.monotonic()
            steps = _changes(endpoint, second)
            settled = time.monotonic()
            time.sleep(factor * STEADY_S)
            ended = time.monotonic()
            answers = going.stop()
    before, after = answers.between(began, changed), answers.between(settled, ended)
    print(
        f"   {most / 2:.0f}/s of at most {most:.0f}/s for {ended - began:.0f} s; {', '.join(steps)}; "
        f"the generator used {answers.cpu_ms:.2f} ms CPU a request"
    )
    for due, latency_ms, status in _failures(answers):
        print(
            f"   failed: due {due - began:.2f} s after the start, status {status} after {latency_ms:.0f} ms"
        )
    return [_failed(answers), _tail(before, answers.between(changed, settled), after)]


def _failures(answers: Answers) -> list[tuple[float, float, int]]:
    bad = answers.status != 200
    return list(zip(answers.due[bad], answers.latency_ms[bad], answers.status[bad], strict=True))[:10]


def _changes(endpoint: Served, second: int) -> list[str]:
    """Update, kill, rollback, each awaited to its end. Returns what each took, in words."""
    steps = []
    began = time.monotonic()
    endpoint.roll_out(second)
    steps.append(f"update {time.monotonic() - began:.1f} s")
    victim = endpoint.until_ready(REPLICAS).replicas[0]
    assert victim.pid is not None
    began = time.monotonic()
    os.kill(victim.pid, signal.SIGKILL)
    while all(one.pid == victim.pid for one in endpoint.seen().replicas if one.name == victim.name):
        time.sleep(0.02)
    endpoint.until_ready(REPLICAS)
    steps.append(f"replacement {time.monotonic() - began:.1f} s")
    began = time.monotonic()
    endpoint.roll_out(1, verb="rollback")
    steps.append(f"rollback {time.monotonic() - began:.1f} s")
    return steps


def _failed(answers: Answers) -> Row:
    return Row(
        metric="failed requests through an update, a kill -9 and a rollback",
        value=answers.failed,
        unit="requests",
        target="0",
        met=answers.failed == 0,
        n=len(answers.due),
    )


def _tail(before: Answers, moving: Answers, after: Answers) -> Row:
    """The quartiles are those of the p99 of slices."""
    steady = percentile([*before.latency_ms, *after.latency_ms], 0.99)
    first, last = before.percentile_ms(0.99), after.percentile_ms(0.99)
    void = moved([first, last])
    note = f"; void, the steady state moved from {first:.1f} to {last:.1f} ms" if void else ""
    ratio = moving.percentile_ms(0.99) / steady
    return Row(
        metric=f"p99 while it changes, over the steady state before and after{note}",
        value=moving.percentile_ms(0.99),
        unit="ms",
        baseline=steady,
        ratio=ratio,
        target="<= 2x",
        met=None if void else ratio <= 2,
        n=len(moving.due),
        spread=quartiles([part.percentile_ms(0.99) for part in _slices(moving)]),
    )


def _slices(answers: Answers) -> list[Answers]:
    begins = np.arange(answers.due.min(), answers.due.max(), SLICE_S)
    return [answers.between(begin, begin + SLICE_S) for begin in begins]
