"""S2, FastAPI half: how much more one replica takes when it may batch, at the same bound on p99.

The bound is 20 times the p50 of a lone request to the unbatched replica. The highest rate is searched by open
loop, for both in turns: each probe that holds the bound moves the lower end up, each that breaks it the upper
end down. Past the proxy, so that only the replica is measured.
"""

from dataclasses import dataclass, replace

from deployments.domain.workload import Batching
from tests.benchmarks.endpoint import UNBATCHED, endpoint
from tests.benchmarks.generator import Answers, Load, drive
from tests.benchmarks.model import request
from tests.benchmarks.result import Row, median, moved, quartiles

BATCHED = Batching(max_batch_size=32, max_queue_delay_microseconds=500, max_queue_size=10_000)
BOUND = 20
ROUNDS, PROBE_S = 5, 2.0
FIRST_PROBES, NEXT_PROBES = 5, 3
NEAR = 0.25
UNLOADED_S, MAXIMUM_S = 2.0, 3.0
CLIENTS = 64


@dataclass(kw_only=True)
class Arm:
    """A replica, what was found of it so far, and how its generator did."""

    load: Load
    most_per_s: float
    found: list[float]
    last: Answers

    def search(self, *, bound_ms: float, seconds: float) -> None:
        """One round: bisects between two rates, near what was found before if there is anything.

        What it finds was measured to hold. Where no probe did, ever lower rates are tried; RuntimeError where even
        a fiftieth of what the closed loop reached does not hold.
        """
        low, high, probes = 0.3 * self.most_per_s, 1.1 * self.most_per_s, FIRST_PROBES
        if self.found:
            middle = self.found[-1]
            low, high, probes = (1 - NEAR) * middle, (1 + NEAR) * middle, NEXT_PROBES
        held = 0.0
        for _ in range(probes):
            rate = (max(low, held) + high) / 2
            if self._holds(rate, bound_ms=bound_ms, seconds=seconds):
                held = rate
            else:
                high = rate
        while not held:
            if low < self.most_per_s / 50:
                raise RuntimeError(f"p99 does not stay below {bound_ms:.0f} ms even at {2 * low:.0f}/s")
            if self._holds(low, bound_ms=bound_ms, seconds=seconds):
                held = low
            low /= 2
        self.found.append(held)

    def _holds(self, rate: float, *, bound_ms: float, seconds: float) -> bool:
        load = replace(self.load, rate_per_s=rate, seconds=seconds, seed=self.load.seed + len(self.found))
        self.last = drive(load)
        return self.last.failed == 0 and self.last.percentile_ms(0.99) <= bound_ms


def run(*, full: bool) -> list[Row]:
    with endpoint() as off, endpoint() as on:
        seconds = 5 * PROBE_S if full else PROBE_S
        arms = []
        for served, batching in ((off, UNBATCHED), (on, BATCHED)):
            arms.append(_arm(served.direct(served.run(replicas=1, batching=batching))))
        unbatched, batched = arms
        alone = drive(replace(unbatched.load, clients=1, seconds=UNLOADED_S)).percentile_ms(0.5)
        for _ in range(ROUNDS):
            for arm in arms:
                arm.search(bound_ms=BOUND * alone, seconds=seconds)
    ratio = median(batched.found) / median(unbatched.found)
    print(
        f"   bound p99 <= {BOUND * alone:.0f} ms ({BOUND} x {alone:.2f}); closed loop "
        f"{unbatched.most_per_s:.0f}/s off, {batched.most_per_s:.0f}/s on; "
        f"generator {batched.last.cpu_ms:.2f} ms CPU a request"
    )
    void = moved(unbatched.found)
    note = f"; void, off moved from {unbatched.found[0]:.0f} to {unbatched.found[-1]:.0f}" if void else ""
    return [
        Row(
            metric=f"highest rate with p99 <= {BOUND}x the unbatched p50, batching on over off (FastAPI){note}",
            value=median(batched.found),
            unit="/s",
            baseline=median(unbatched.found),
            ratio=ratio,
            target=">= 2x",
            met=None if void else ratio >= 2,
            n=len(batched.found),
            spread=quartiles(batched.found),
        )
    ]


def _arm(urls: tuple[str, ...]) -> Arm:
    body, headers = request()
    load = Load(urls=urls, body=body, headers=headers, seconds=MAXIMUM_S, clients=CLIENTS)
    drive(load)
    most = drive(load)
    return Arm(load=load, most_per_s=most.per_s, found=[], last=most)
