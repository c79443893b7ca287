"""A scraper that runs in a test, and waiting for what it takes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from deployments.telemetry.scrape import Scrape, Target
from deployments.telemetry.scraper import Scraper
from tests.deployments.telemetry.fake_exporter import METRICS, FakeExporter


def target(exporter: FakeExporter, number: int, *, deployment: str = "d1", incarnation: str = "") -> Target:
    return Target(
        deployment=deployment,
        revision=1,
        replica=f"ranker-{number}",
        url=exporter.url(number),
        metrics=METRICS,
        incarnation=incarnation,
    )


@dataclass
class Taken:
    """Every scrape so far, in order."""

    scrapes: list[Scrape] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, scrape: Scrape) -> None:
        self.scrapes.append(scrape)
        self.changed.set()

    def of(self, number: int) -> list[Scrape]:
        return [scrape for scrape in self.scrapes if scrape.target.replica == f"ranker-{number}"]

    async def until(self, condition: Callable[[], bool], *, within_s: float = 30) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def running(scraper: Scraper) -> AsyncIterator[Scraper]:
    task = asyncio.create_task(scraper.run())
    try:
        yield scraper
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
