"""Everything that goes by one beat: the scrapes, the signals made of them, and the windows.

Replicas on this machine are asked every 2 s, pods every second because an autoscaler elsewhere acts on them, those
behind an API server every 5 s, and each beat has its own idea of how old a signal may become. Refused: one period for
all, which would either load API servers with every page or call their signals stale between any two scrapes.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from deployments.telemetry.rollup import Accumulator, Window
from deployments.telemetry.scrape import Scrape, Target
from deployments.telemetry.scraper import Scraper
from deployments.telemetry.series import SeriesBook
from deployments.telemetry.signals import DeploymentSignals, SignalBook

ASKED_PERIOD_S: Final = 1.0
"""Between two scrapes of a pod that is reached directly."""
TOLD_EVERY_S: Final = 0.5
"""Autoscalers elsewhere are told what was scraped since: together, what they read is at most 1.5 s old."""


@dataclass(kw_only=True, eq=False)
class Measuring:
    """`timeout_s` bounds one scrape; `burst` is called with the deployment at which suddenly many requests wait."""

    period_s: float
    timeout_s: float = 1.0
    burst: Callable[[str], None] = lambda deployment: None

    def __post_init__(self) -> None:
        self.windows = Accumulator(period_s=self.period_s)
        self._series = SeriesBook()
        self._signals = SignalBook(period_s=self.period_s)
        self.scraper = Scraper(on_scrape=self._heard, interval_s=self.period_s, timeout_s=self.timeout_s)

    async def _heard(self, scrape: Scrape) -> None:
        reading = self._series.observe(scrape)
        burst = self._signals.take(reading)
        self.windows.add(reading)
        if burst:
            self.burst(reading.target.deployment)

    def expect(self, scraped: Mapping[str, Collection[Target]], *, now: float) -> None:
        """By deployment, which pages there are from now on."""
        everything = [target for some in scraped.values() for target in some]
        self.scraper.replace(everything)
        self._series.keep_only(everything)
        self._signals.expect(scraped, now=now)

    def signals(self, deployment: str, *, now: float, at_wall: float, ready: int | None) -> DeploymentSignals:
        """As they are now; they are counted in the windows."""
        found = self.peek(deployment, now=now, at_wall=at_wall)
        self.windows.add_signals(found, ready=ready)
        return found

    def peek(self, deployment: str, *, now: float, at_wall: float) -> DeploymentSignals:
        """As they are now, and counted nowhere."""
        return self._signals.signals(deployment, now=now, at_wall=at_wall)

    def close(self, wall: float) -> list[Window]:
        return self.windows.close(wall)
