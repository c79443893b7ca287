"""S1: what Envoy adds to a request of about a millisecond, against the same client balancing by itself.

Both ways see the same arrivals at half of what the endpoint can do, in turns.
"""

from dataclasses import replace

from tests.benchmarks.accounting import CpuOf
from tests.benchmarks.endpoint import UNBATCHED, endpoint
from tests.benchmarks.generator import Load, drive
from tests.benchmarks.model import request
from tests.benchmarks.result import Row, compared, median, moved

REPLICAS = 2
ROUNDS, SECONDS = 10, 3.0
MAXIMUM_S, WARM_UP_S = 3.0, 2.0
CLIENTS = 16


def run(*, full: bool) -> list[Row]:
    seconds = 6 * SECONDS if full else SECONDS
    body, headers = request()
    with endpoint() as served:
        seen = served.run(replicas=REPLICAS, batching=UNBATCHED)
        proxied = Load(urls=(served.url,), body=body, headers=headers, seconds=MAXIMUM_S, clients=CLIENTS)
        drive(replace(proxied, seconds=WARM_UP_S))
        most = drive(proxied).per_s
        proxied = replace(proxied, rate_per_s=most / 2, seconds=seconds)
        direct = replace(proxied, urls=served.direct(seen))
        drive(replace(direct, seconds=WARM_UP_S))
        assert served.node.process is not None
        through, past, cpu_s = [], [], 0.0
        for number in range(ROUNDS):
            load = {"seed": proxied.seed + number}
            past.append(drive(replace(direct, **load)))
            used = CpuOf.trees([served.node.process.pid])
            through.append(drive(replace(proxied, **load)))
            cpu_s += used.since()
    failed = sum(answers.failed for answers in (*through, *past))
    sent = sum(len(answers.due) for answers in through)
    late = median([float(one.late_ms.max()) for one in through])
    print(
        f"   measured maximum {most:.0f}/s, sent {most / 2:.0f}/s, {failed} failed; the generator used "
        f"{median([one.cpu_ms for one in through]):.2f} ms CPU a request and sent at most {late:.1f} ms late; node, "
        f"proxy and replicas used {cpu_s / sent * 1000:.2f} ms CPU a request"
    )
    void = moved([one.percentile_ms(0.5) for one in past])
    return [
        compared(
            metric=f"{name} through Envoy, {REPLICAS} replicas, {most / 2:.0f}/s",
            unit="ms",
            values=[one.percentile_ms(share) for one in through],
            floor=[one.percentile_ms(share) for one in past],
            at_most=at_most,
            n=len(through[0].due),
            void=void,
        )
        for name, share, at_most in (("p50", 0.5, 1.3), ("p99", 0.99, 1.5))
    ]
