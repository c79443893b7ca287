"""The whole line over real HTTP: pages of several replicas to percentiles of their deployment."""

import numpy as np
import pytest

from deployments.domain.sketch import Sketch, merge
from deployments.telemetry.rollup import Accumulator
from deployments.telemetry.scrape import Scrape
from deployments.telemetry.scraper import Scraper
from deployments.telemetry.series import SeriesBook
from deployments.telemetry.signals import SignalBook, SignalError, SignalName
from tests.deployments.telemetry.fake_exporter import FakeExporter, Mode
from tests.deployments.telemetry.scraping import Taken, running, target


class Line:
    """What the collector does with a scrape."""

    def __init__(self) -> None:
        self.series, self.windows, self.taken = SeriesBook(), Accumulator(), Taken()
        self.signals = SignalBook(period_s=0.2)

    async def take(self, scrape: Scrape) -> None:
        reading = self.series.observe(scrape)
        self.signals.take(reading)
        self.windows.add(reading)
        await self.taken.take(scrape)

    async def next_of_each(self, replicas: int, *, scrapes: int = 1) -> None:
        """Waits until every replica was scraped that often again."""
        wanted = [len(self.taken.of(number)) + scrapes for number in range(replicas)]
        await self.taken.until(lambda: all(len(self.taken.of(n)) >= wanted[n] for n in range(replicas)))


@pytest.mark.parametrize("replicas", [1, 4])
async def test_percentiles_of_a_known_distribution_are_within_one_percent(replicas: int) -> None:
    random, line, served = np.random.default_rng(9), Line(), []
    scraper = Scraper(on_scrape=line.take, interval_s=0.2, timeout_s=5)
    async with FakeExporter(replicas) as exporter:
        scraper.replace([target(exporter, number) for number in range(replicas)])
        async with running(scraper):
            for rounds in range(1, 4):
                await line.next_of_each(replicas)
                for number, replica in enumerate(exporter.replicas):
                    values = random.lognormal(-5 + number, 0.3 * rounds, 1500)
                    replica.serve(values)
                    served.append(values)
            # One scrape may have been under way while the last values were served.
            await line.next_of_each(replicas, scrapes=2)
    windows = [window for window in line.windows.close_all() if window.key.revision is None]
    together = merge(Sketch.from_bytes(window.latency) for window in windows)
    truth = np.concatenate(served)
    assert together.count == sum(window.requests for window in windows) == truth.size
    for q in (0.5, 0.95, 0.99):
        assert together.quantile(q) == pytest.approx(float(np.quantile(truth, q, method="lower")), rel=0.01)


@pytest.mark.faults
async def test_F36_F39_a_silent_replica_turns_the_signal_into_an_error_and_back() -> None:
    line = Line()
    scraper = Scraper(on_scrape=line.take, interval_s=0.2, timeout_s=0.1)
    async with FakeExporter(2) as exporter:
        targets = [target(exporter, 0), target(exporter, 1)]
        exporter.replicas[0].queue_depth, exporter.replicas[1].queue_depth = 3, 4

        def depth() -> tuple[float | None, SignalError | None]:
            now = line.taken.scrapes[-1].at_monotonic
            signal = line.signals.signals("d1", now=now, at_wall=0)[SignalName.QUEUE_DEPTH]
            return signal.value, signal.error

        scraper.replace(targets)
        line.signals.expect({"d1": targets}, now=0)
        async with running(scraper):
            await line.taken.until(lambda: bool(line.taken.scrapes) and depth() == (7, None))
            exporter.replicas[1].mode = Mode.HANG
            exporter.replicas[0].queue_depth = 5
            await line.taken.until(lambda: depth() == (9, None))
            await line.taken.until(lambda: depth() == (None, SignalError.STALE))
            exporter.replicas[1].mode = Mode.NORMAL
            exporter.replicas[1].queue_depth = 0
            await line.taken.until(lambda: depth() == (5, None))


@pytest.mark.faults
async def test_F37_a_restarted_replica_never_shows_a_giant_rate() -> None:
    line = Line()
    scraper = Scraper(on_scrape=line.take, interval_s=0.2, timeout_s=5)
    async with FakeExporter(1) as exporter:
        (replica,) = exporter.replicas
        replica.serve([0.01] * 100_000)
        scraper.replace([target(exporter, 0)])
        async with running(scraper):
            await line.taken.until(lambda: len(line.taken.scrapes) >= 2)
            replica.restart()
            replica.serve([0.01] * 50)
            seen = len(line.taken.scrapes)
            await line.taken.until(lambda: len(line.taken.scrapes) >= seen + 3)
    counted = [window.requests for window in line.windows.close_all()]
    assert all(0 <= requests <= 50 for requests in counted)
