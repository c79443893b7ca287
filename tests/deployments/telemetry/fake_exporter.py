"""Many replicas' metrics pages on one port, well behaved or hostile, for tests and the scrape benchmark.

A bare asyncio protocol, so that serving a page costs next to nothing beside reading it. Target n is at
`/t/n`. A page has 218 lines, as the benchmark's does, and is what a replica of the FastAPI stack prints:
sparse log buckets and time counters among the usual process metrics. Run it alone with `python -m
...fake_exporter --targets 2000`.
"""

import argparse
import asyncio
from collections.abc import Iterable
from enum import StrEnum
from types import TracebackType
from typing import Self

import numpy as np

from deployments.domain.sketch import GAMMA, bucket_of
from deployments.domain.vocabulary import MetricsMap

PAGE_LINES = 218
HUGE_BYTES = 200_000_000

METRICS = MetricsMap.of(
    {
        "requests": "slipway_requests_total",
        "errors": "slipway_errors_total",
        "latency": "slipway_latency_seconds",
        "queue_depth": "slipway_queue_depth",
        "in_flight": "slipway_in_flight",
        "queue_seconds_total": "slipway_queue_seconds_total",
        "in_flight_seconds_total": "slipway_in_flight_seconds_total",
    }
)


class Mode(StrEnum):
    NORMAL = "normal"
    HANG = "hang"
    HANG_IN_BODY = "hang_in_body"
    DROP = "drop"
    STATUS_503 = "status_503"
    REDIRECT = "redirect"
    HUGE = "huge"
    HUGE_DECLARED = "huge_declared"
    MANY_SERIES = "many_series"
    NAN = "nan"
    INF = "inf"
    BAD_TEXT = "bad_text"
    NOT_UTF8 = "not_utf8"
    WRONG_TYPE = "wrong_type"
    COMPRESSED = "compressed"


class FakeReplica:
    """The counters of one replica's process. `restart()` is another process under the same name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mode = Mode.NORMAL
        self.queue_depth = 0.0
        self.in_flight = 0.0
        self.scrapes = 0
        self.restart()

    def restart(self) -> None:
        self.requests: dict[str, float] = {"200": 0}
        self.errors: dict[str, float] = {}
        self.buckets: dict[int, int] = {}
        self.latency_sum = 0.0
        self.queue_seconds = 0.0
        self.in_flight_seconds = 0.0

    def serve(self, latencies: Iterable[float], *, failed: int = 0, reason: str = "overloaded") -> None:
        """Answers these requests with these latencies (seconds), and refuses some."""
        for latency in latencies:
            bucket = bucket_of(float(latency))
            self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
            self.latency_sum += float(latency)
            self.requests["200"] += 1
            self.in_flight_seconds += float(latency)
        if failed:
            self.requests["429"] = self.requests.get("429", 0) + failed
            self.errors[reason] = self.errors.get(reason, 0) + failed

    def lines(self) -> list[str]:
        own = f'deployment="shop/ranker",revision="1",replica="{self.name}"'
        total = sum(self.buckets.values())
        lines = ["# HELP slipway_requests_total Requests answered.", "# TYPE slipway_requests_total counter"]
        lines += [f'slipway_requests_total{{{own},code="{c}"}} {n:g}' for c, n in self.requests.items()]
        lines += [f'slipway_errors_total{{{own},reason="{r}"}} {n:g}' for r, n in self.errors.items()]
        lines.append("# TYPE slipway_latency_seconds histogram")
        cumulative = 0
        for bucket in sorted(self.buckets):
            cumulative += self.buckets[bucket]
            lines.append(f'slipway_latency_seconds_bucket{{{own},le="{GAMMA**bucket!r}"}} {cumulative}')
        lines += [
            f'slipway_latency_seconds_bucket{{{own},le="+Inf"}} {total}',
            f"slipway_latency_seconds_sum{{{own}}} {self.latency_sum!r}",
            f"slipway_latency_seconds_count{{{own}}} {total}",
            f"slipway_queue_depth{{{own}}} {self.queue_depth:g}",
            f"slipway_in_flight{{{own}}} {self.in_flight:g}",
            f"slipway_queue_seconds_total{{{own}}} {self.queue_seconds!r}",
            f"slipway_in_flight_seconds_total{{{own}}} {self.in_flight_seconds!r}",
            "process_start_time_seconds 1.7e9",
        ]
        others = PAGE_LINES - len(lines)
        lines += [f'python_other_objects{{generation="{n}",{own}}} {n * 1.5}' for n in range(others)]
        return lines

    def page(self) -> bytes:
        match self.mode:
            case Mode.NAN | Mode.INF:
                lines = [
                    f"{line.rpartition(' ')[0]} {self.mode}"
                    if line.startswith("slipway_queue_depth")
                    else line
                    for line in self.lines()
                ]
            case Mode.BAD_TEXT:
                lines = [*self.lines(), 'slipway_requests_total{code="200} 5']
            case Mode.MANY_SERIES:
                # Short enough to fit the body cap: the cap on samples has to hold by itself.
                lines = [f"a{n:x} 1" for n in range(1_000_000)]
            case _:
                lines = self.lines()
        page = "\n".join(lines).encode() + b"\n"
        return b"\xff\xfe" + page if self.mode is Mode.NOT_UTF8 else page


class _Connection(asyncio.Protocol):
    def __init__(self, exporter: "FakeExporter") -> None:
        self.exporter = exporter
        self.waiting = b""
        self.flood: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.exporter.connections += 1
        self.exporter.open.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.exporter.open.discard(self.transport)
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        while b"\r\n\r\n" in self.waiting:
            head, _, self.waiting = self.waiting.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            self.answer(self.exporter.replicas[int(path.rpartition("/")[2])])

    def answer(self, replica: FakeReplica) -> None:
        replica.scrapes += 1
        write = self.transport.write
        match replica.mode:
            case Mode.HANG:
                pass
            case Mode.HANG_IN_BODY:
                write(_head(1000) + b"slipway_queue_depth 1\n")
            case Mode.DROP:
                self.transport.close()
            case Mode.STATUS_503:
                write(_head(4, status="503 Service Unavailable") + b"busy")
            case Mode.REDIRECT:
                write(_head(0, status="302 Found", extra="Location: /t/0\r\n"))
            case Mode.HUGE:
                write(_head(None, extra="Transfer-Encoding: chunked\r\n"))
                self.flood = asyncio.get_running_loop().create_task(self.send_huge())
            case Mode.HUGE_DECLARED:
                write(_head(HUGE_BYTES) + b"#" * 65536)
            case Mode.WRONG_TYPE:
                write(_head(2, kind="application/json") + b"{}")
            case Mode.COMPRESSED:
                write(_head(2, extra="Content-Encoding: gzip\r\n") + b"\x1f\x8b")
            case _:
                page = self.exporter.page_of(replica)
                write(_head(len(page)) + page)

    async def send_huge(self) -> None:
        chunk = b"# " + b"x" * 65533 + b"\n"
        framed = b"%x\r\n%b\r\n" % (len(chunk), chunk)
        for _ in range(HUGE_BYTES // len(chunk)):
            await self.writable.wait()
            if self.transport.is_closing():
                return
            self.transport.write(framed)
            self.exporter.huge_bytes_sent += len(chunk)


def _head(
    length: int | None, *, status: str = "200 OK", kind: str = "text/plain; version=0.0.4", extra: str = ""
) -> bytes:
    size = "" if length is None else f"Content-Length: {length}\r\n"
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{size}{extra}\r\n".encode()


class FakeExporter:
    """`async with FakeExporter(3) as exporter:` serves `exporter.url(0..2)`; change `exporter.replicas[n]` at
    will."""

    def __init__(self, targets: int) -> None:
        self.replicas = [FakeReplica(f"ranker-{n}") for n in range(targets)]
        self.connections = 0
        self.huge_bytes_sent = 0
        self.open: set[asyncio.Transport] = set()

    def url(self, target: int) -> str:
        return f"http://127.0.0.1:{self.port}/t/{target}"

    def page_of(self, replica: FakeReplica) -> bytes:
        return replica.page()

    async def listen(self, port: int = 0) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", port, backlog=4096)
        self.port = self.server.sockets[0].getsockname()[1]
        return self.server

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.close()
        for transport in list(self.open):
            transport.abort()
        await self.server.wait_closed()


class RenderedExporter(FakeExporter):
    """Pages rendered beforehand, all targets alike, counters growing from one scrape to the next: for
    benchmarks."""

    def __init__(self, targets: int, *, pages: int = 400, per_page: int = 50) -> None:
        super().__init__(targets)
        random, replica = np.random.default_rng(7), FakeReplica("ranker-0")
        self.pages: list[bytes] = []
        # A replica that has served for a while: new buckets have become rare.
        replica.serve(random.lognormal(-4.0, 0.25, 100_000))
        for _ in range(pages):
            replica.serve(random.lognormal(-4.0, 0.25, per_page))
            self.pages.append(replica.page())

    def page_of(self, replica: FakeReplica) -> bytes:
        return self.pages[replica.scrapes % len(self.pages)]


async def _alone(targets: int, port: int, dead: float, slow: float) -> None:
    exporter = RenderedExporter(targets)
    for replica in exporter.replicas[: int(targets * dead)]:
        replica.mode = Mode.DROP
    for replica in exporter.replicas[targets - int(targets * slow) :]:
        replica.mode = Mode.HANG
    server = await exporter.listen(port)
    print(exporter.port, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--targets", type=int, default=2000)
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--dead", type=float, default=0.0, help="share that drops the connection")
    arguments.add_argument("--slow", type=float, default=0.0, help="share that never answers")
    given = arguments.parse_args()
    asyncio.run(_alone(given.targets, given.port, given.dead, given.slow))
