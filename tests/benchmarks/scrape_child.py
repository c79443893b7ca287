"""One round of scraping 2,000 replicas, by the collector's own line or by a floor without one. A child that prints
JSON.

`seed` makes the deployments. `line` runs the product's Collector: scraper, series, signals, windows, Postgres and
Redis; what it is told is fixed (asking the node, and autoscaling, belong to other benchmarks). `floor` is a bare
asyncio client that keeps the wanted lines of a page by their prefix, and nothing else.
"""

import asyncio
import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any

from tests.benchmarks.accounting import unique_mib
from tests.benchmarks.result import percentile
from tests.deployments.telemetry.fake_exporter import METRICS

REPLICAS, DEPLOYMENTS = 2000, 100
WARM_UP_BEATS = 4.5
"""The first pages of all replicas are read slowly and late; what is measured is after that."""


class _Page(asyncio.Protocol):
    """One connection: a request at a time, the body to whoever asked."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.waiting = bytearray()
        self.needed = 0
        self.answer: asyncio.Future[bytes] | None = None

    def ask(self, path: str) -> "asyncio.Future[bytes]":
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return self.answer

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        if not self.needed and (end := self.waiting.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.waiting[:end])
            length = head[head.index(b"Content-Length: ") + 16 :].split(b"\r\n", 1)[0]
            del self.waiting[: end + 4]
            self.needed = int(length)
        if self.needed and len(self.waiting) >= self.needed:
            body, self.waiting, self.needed = bytes(self.waiting), bytearray(), 0
            if self.answer is not None and not self.answer.done():
                self.answer.set_result(body)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(ConnectionResetError())


def _wanted(body: bytes, names: tuple[str, ...]) -> list[tuple[str, float]]:
    lines = [line for line in body.decode().split("\n") if line.startswith(names)]
    return [(line[: (at := line.rindex(" "))], float(line[at + 1 :])) for line in lines]


async def floor(port: int, *, interval_s: float, seconds: float) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    names = tuple(METRICS.sample_names)
    free: list[_Page] = []
    counted = _Counted()
    begin, tasks = loop.time(), set[asyncio.Task[None]]()

    async def scrape(target: int, due: float) -> None:
        counted.late_s.append(loop.time() - due)
        page = free.pop() if free else (await loop.create_connection(_Page, "127.0.0.1", port))[1]
        try:
            async with asyncio.timeout(1):
                _wanted(await page.ask(f"/t/{target}"), names)
            free.append(page)
        except (TimeoutError, OSError):
            counted.failed += 1
            page.transport.abort()
        counted.attempts += 1

    def fire(target: int, due: float) -> None:
        task = loop.create_task(scrape(target, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        loop.call_at(due + interval_s, fire, target, due + interval_s)

    for target in range(REPLICAS):
        loop.call_at(
            begin + target / REPLICAS * interval_s, fire, target, begin + target / REPLICAS * interval_s
        )
    await asyncio.sleep(1.5 * interval_s)
    found = await counted.during(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


class _Counted:
    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        self.attempts = self.failed = 0
        self.late_s: list[float] = []

    async def during(self, seconds: float) -> dict[str, Any]:
        """What this process used and saw in the next so many seconds."""
        self.start_over()
        before = unique_mib(os.getpid())
        cpu = time.process_time()
        await asyncio.sleep(seconds)
        used = time.process_time() - cpu
        return {
            "cpu_ms": used / self.attempts * 1000,
            "attempts": self.attempts,
            "failed": self.failed,
            "late_p99_s": percentile(self.late_s, 0.99),
            "memory_mib": unique_mib(os.getpid()),
            "grown_mib": unique_mib(os.getpid()) - before,
        }


def _counted(collector: "Collector") -> _Counted:  # noqa: F821
    """Of what its own beat scrapes."""
    counted, scraper = _Counted(), collector._here.scraper
    hear = scraper.on_scrape

    async def heard(scrape: "Scrape") -> None:  # noqa: F821
        await hear(scrape)
        counted.attempts += 1
        counted.failed += scrape.failure is not None
        counted.late_s.append(scrape.late_s)

    scraper.on_scrape = heard
    return counted


def _setup() -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    django.setup()


def seed() -> dict[str, Any]:
    _setup()
    from deployments.models import Deployment, Target
    from tests.factories import team

    owner = team("bench")
    here = Target.objects.get(team=owner)
    for number in range(DEPLOYMENTS):
        Deployment.objects.create(team=owner, name=f"d-{number}", target=here, autoscaling_paused=True)
    return {}


def line(port: int, *, interval_s: float, seconds: float) -> dict[str, Any]:
    _setup()
    from redis.asyncio import Redis

    from deployments.collector import Collector, Watched
    from deployments.domain.workload import TargetStatus
    from deployments.models import Deployment, Rollup
    from deployments.telemetry.scrape import Target

    rows = list(Deployment.objects.select_related("team", "target"))
    each = REPLICAS // len(rows)
    watched, scraped = [], {}
    for place, row in enumerate(rows):
        seen = TargetStatus(
            key=row.key, generation=1, address=None, replicas=(), observed_at=datetime.now(UTC)
        )
        watched.append(Watched(deployment=row, governing=None, reached=True, seen=seen))
        scraped[row.key] = [
            Target(
                deployment=row.key,
                revision=1,
                replica=f"r{number}",
                url=f"http://127.0.0.1:{port}/t/{number}",
                metrics=METRICS,
            )
            for number in range(place * each, (place + 1) * each)
        ]

    class Told(Collector):
        """The product's collector, told what runs."""

        def _look(self) -> list[Watched]:
            return watched

        def _targets(self, one: Watched) -> list[Target]:
            return scraped[one.deployment.key]

    async def collect() -> dict[str, Any]:
        async with Redis.from_url(os.environ["REDIS_URL"]) as redis:
            collector, stopping = Told(redis=redis, period_s=interval_s), asyncio.Event()
            counted = _counted(collector)
            running = asyncio.create_task(collector.run(stopping))
            await asyncio.sleep(WARM_UP_BEATS * interval_s)
            found = await counted.during(seconds)
            stopping.set()
            await running
            return found

    before = Rollup.objects.count()
    found = asyncio.run(collect())
    return found | {"rows": Rollup.objects.count() - before}


def main() -> None:
    what, port, interval_s, seconds = sys.argv[1], *map(float, sys.argv[2:])
    match what:
        case "seed":
            found = seed()
        case "line":
            found = line(int(port), interval_s=interval_s, seconds=seconds)
        case _:
            found = asyncio.run(floor(int(port), interval_s=interval_s, seconds=seconds))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
