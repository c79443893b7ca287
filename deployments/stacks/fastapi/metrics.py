"""What a replica says about itself to whoever scrapes it, in the Prometheus text format.

The latency histogram has the buckets of a 1 % sketch (DDSketch's rule) and writes only those that are not
empty, so percentiles of any number of replicas merge exactly as far as 1 %, and the page stays small. Written
by hand: prometheus_client would need a fixed list of buckets and costs several times the time.
Refused: latency of refused requests in the histogram, which makes an overloaded replica look fast.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from deployments.domain.sketch import GAMMA, bucket_of
from deployments.stacks.fastapi.errors import Reason
from deployments.stacks.fastapi.load import Load

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_SHORTEST_S = 1e-6
# The last bound is the largest `max_batch_size` that `Batching` allows.
_BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters of one replica. Used on the event loop only."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
        self._requests: Counter[int] = Counter({200: 0})
        self._errors: Counter[Reason] = Counter(dict.fromkeys(Reason, 0))
        self._bins: Counter[int] = Counter()
        self._seconds = 0.0
        self._batches: Counter[int] = Counter()
        self._rows = 0
        self._started = time.time()

    def served(self, seconds: float) -> None:
        """A request was answered with a result, `seconds` after its last byte had come in."""
        self._requests[200] += 1
        self._bins[bucket_of(max(seconds, _SHORTEST_S))] += 1
        self._seconds += seconds

    def refused(self, status: int, reason: Reason) -> None:
        self._requests[status] += 1
        self._errors[reason] += 1

    def ran(self, rows: int) -> None:
        self._batches[_BATCH_BOUNDS[bisect_left(_BATCH_BOUNDS, rows)]] += 1
        self._rows += rows

    def page(self, load: Load, *, ready: bool) -> bytes:
        """Everything, with the time counters as `load` advanced them."""
        lines = [
            *self._family("slipway_requests_total", "counter", "Inference requests by HTTP status."),
            *self._by("slipway_requests_total", "code", self._requests.items()),
            *self._family("slipway_errors_total", "counter", "Requests without a result, by reason."),
            *self._by("slipway_errors_total", "reason", self._errors.items()),
            *self._family(
                "slipway_latency_seconds", "histogram", "Last byte in to answer ready; results only."
            ),
            *self._histogram("slipway_latency_seconds", self._latency_buckets(), self._seconds),
            *self._family("slipway_batch_size", "histogram", "Rows in one run of the model."),
            *self._histogram("slipway_batch_size", self._batch_buckets(), self._rows),
            *self._one("slipway_queue_depth", "gauge", "Requests waiting.", load.waiting),
            *self._one("slipway_in_flight", "gauge", "Requests waiting or running.", load.in_flight),
            *self._one(
                "slipway_queue_seconds_total", "counter", "Seconds waited, by now.", load.waiting_seconds
            ),
            *self._one(
                "slipway_in_flight_seconds_total",
                "counter",
                "Seconds in flight, by now.",
                load.in_flight_seconds,
            ),
            *self._one("slipway_ready", "gauge", "1 where new requests are welcome.", int(ready)),
            *self._one("process_start_time_seconds", "gauge", "Start, Unix time.", self._started),
        ]
        return ("\n".join(lines) + "\n").encode()

    def _family(self, name: str, kind: str, text: str) -> tuple[str, str]:
        return f"# HELP {name} {text}", f"# TYPE {name} {kind}"

    def _one(self, name: str, kind: str, text: str, value: float) -> tuple[str, str, str]:
        return *self._family(name, kind, text), f"{name}{{{self._labels}}} {value!r}"

    def _by(self, name: str, label: str, counts: Iterable[tuple[object, int]]) -> Iterator[str]:
        return (f'{name}{{{self._labels},{label}="{key}"}} {count}' for key, count in counts)

    def _histogram(self, name: str, buckets: Iterable[tuple[float, int]], total: float) -> Iterator[str]:
        """`buckets` are (upper bound, count in this bucket), in rising order."""
        count = 0
        for bound, more in buckets:
            count += more
            yield f'{name}_bucket{{{self._labels},le="{bound!r}"}} {count}'
        yield f'{name}_bucket{{{self._labels},le="+Inf"}} {count}'
        yield f"{name}_sum{{{self._labels}}} {total!r}"
        yield f"{name}_count{{{self._labels}}} {count}"

    def _latency_buckets(self) -> Iterator[tuple[float, int]]:
        return ((GAMMA**index, count) for index, count in sorted(self._bins.items()))

    def _batch_buckets(self) -> Iterator[tuple[float, int]]:
        return ((bound, self._batches[bound]) for bound in _BATCH_BOUNDS)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
