"""The beat is kept, whatever some of the targets do."""

import asyncio
import tracemalloc

import pytest

from deployments.telemetry.exposition import BadPageReason, PageLimits
from deployments.telemetry.scrape import Scrape, Unanswered
from deployments.telemetry.scraper import Scraper
from tests.deployments.telemetry.fake_exporter import FakeExporter, Mode
from tests.deployments.telemetry.scraping import Taken, running, target

INTERVAL_S = 0.1


def scraper_of(taken: Taken, **options: object) -> Scraper:
    return Scraper(on_scrape=taken.take, **{"interval_s": INTERVAL_S, "timeout_s": 0.05, **options})  # type: ignore[arg-type]


async def test_every_target_is_scraped_every_interval_at_its_own_phase() -> None:
    async with FakeExporter(20) as exporter:
        taken = Taken()
        scraper = scraper_of(taken, interval_s=0.5, timeout_s=0.4)
        targets = [target(exporter, number) for number in range(20)]
        scraper.replace(targets)
        async with running(scraper):
            await taken.until(lambda: all(len(taken.of(number)) >= 3 for number in range(20)))
        assert not [scrape.failure for scrape in taken.scrapes if scrape.failure]
        starts = {
            number: [scrape.at_monotonic - scrape.late_s for scrape in taken.of(number)]
            for number in range(20)
        }
        phases = sorted(times[0] % 0.5 for times in starts.values())
        assert phases[-1] - phases[0] > 0.25, "the load is spread over the interval"
        assert {state.consecutive_failures for state in scraper.states.values()} == {0}


async def test_connections_are_kept_alive() -> None:
    async with FakeExporter(2) as exporter:
        taken = Taken()
        scraper = scraper_of(taken, timeout_s=5)
        scraper.replace([target(exporter, 0), target(exporter, 1)])
        async with running(scraper):
            await taken.until(lambda: len(taken.scrapes) >= 10)
        assert exporter.connections <= 2


@pytest.mark.parametrize(
    ("mode", "failure"),
    [
        (Mode.HANG, Unanswered.TIMEOUT),
        (Mode.HANG_IN_BODY, Unanswered.TIMEOUT),
        (Mode.DROP, Unanswered.UNREACHABLE),
        (Mode.STATUS_503, Unanswered.STATUS),
        (Mode.REDIRECT, Unanswered.STATUS),
    ],
)
async def test_a_target_that_does_not_answer_is_told_apart(mode: Mode, failure: Unanswered) -> None:
    async with FakeExporter(1) as exporter:
        exporter.replicas[0].mode = mode
        taken = Taken()
        scraper = scraper_of(taken)
        scraper.replace([target(exporter, 0)])
        async with running(scraper):
            await taken.until(lambda: len(taken.scrapes) >= 2)
            (state,) = scraper.states.values()
            assert (state.failure, state.bad_page, state.last_ok_wall) == (failure, None, None)
            assert state.consecutive_failures >= 2
            exporter.replicas[0].mode = Mode.NORMAL
            await taken.until(lambda: taken.scrapes[-1].failure is None)
            assert (state.failure, state.consecutive_failures) == (None, 0)
            assert state.last_ok_wall is not None


async def test_nobody_listens() -> None:
    async with FakeExporter(1) as exporter:
        gone = target(exporter, 0)
    taken = Taken()
    scraper = scraper_of(taken)
    scraper.replace([gone])
    async with running(scraper):
        await taken.until(lambda: len(taken.scrapes) >= 1)
    assert taken.scrapes[0].failure is Unanswered.UNREACHABLE


@pytest.mark.faults
@pytest.mark.parametrize("silent", [1, 20], ids=["5 %", "100 %"])
async def test_F36_targets_that_never_answer_delay_nobody(silent: int) -> None:
    async with FakeExporter(20) as exporter:
        for replica in exporter.replicas[:silent]:
            replica.mode = Mode.HANG
        taken = Taken()
        scraper = scraper_of(taken, interval_s=1.0, timeout_s=0.5, concurrency=8)
        scraper.replace([target(exporter, number) for number in range(20)])
        async with running(scraper):
            await taken.until(lambda: all(len(taken.of(number)) >= 5 for number in range(silent, 20)))
            await taken.until(lambda: all(taken.of(number) for number in range(silent)))
        quiet = [scrape for number in range(silent) for scrape in taken.of(number)]
        assert {scrape.failure for scrape in quiet} == {Unanswered.TIMEOUT}
        answered = [scrape for number in range(silent, 20) for scrape in taken.of(number)]
        assert all(scrape.failure is None for scrape in answered)
        assert all(scrape.late_s <= 1.0 for scrape in answered)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (Mode.HUGE, BadPageReason.BODY_TOO_LARGE),
        (Mode.HUGE_DECLARED, BadPageReason.BODY_TOO_LARGE),
        (Mode.NAN, BadPageReason.NOT_FINITE),
        (Mode.INF, BadPageReason.NOT_FINITE),
        (Mode.BAD_TEXT, BadPageReason.UNREADABLE_LINE),
        (Mode.NOT_UTF8, BadPageReason.NOT_TEXT),
        (Mode.WRONG_TYPE, BadPageReason.CONTENT_TYPE),
        (Mode.COMPRESSED, BadPageReason.CONTENT_ENCODING),
    ],
)
async def test_F38_a_hostile_page_marks_its_target_bad_and_no_other(
    mode: Mode, reason: BadPageReason
) -> None:
    async with FakeExporter(2) as exporter:
        exporter.replicas[0].mode = mode
        taken = Taken()
        scraper = scraper_of(taken, timeout_s=5)
        hostile, good = target(exporter, 0), target(exporter, 1)
        scraper.replace([hostile, good])
        async with running(scraper):
            await taken.until(lambda: len(taken.of(0)) >= 2 and len(taken.of(1)) >= 2)
            states = scraper.states
        assert states[hostile].bad_page is reason
        assert states[good].bad_page is None
        assert all(not scrape.page for scrape in taken.of(0))


@pytest.mark.faults
@pytest.mark.parametrize("body_bytes", [2_000_000, 20_000_000], ids=["by bytes", "by lines"])
async def test_F38_a_million_series_are_refused_unread(body_bytes: int) -> None:
    async with FakeExporter(1) as exporter:
        exporter.replicas[0].mode = Mode.MANY_SERIES
        taken = Taken()
        scraper = scraper_of(taken, timeout_s=20, interval_s=0.2, limits=PageLimits(body_bytes=body_bytes))
        scraper.replace([target(exporter, 0)])
        async with running(scraper):
            await taken.until(lambda: len(taken.scrapes) >= 1)
        expected = BadPageReason.TOO_MANY_SAMPLES if body_bytes > 10**7 else BadPageReason.BODY_TOO_LARGE
        assert taken.scrapes[0].failure is expected


@pytest.mark.faults
async def test_F38_memory_stays_flat_while_200_MB_are_offered() -> None:
    async with FakeExporter(1) as exporter:
        exporter.replicas[0].mode = Mode.HUGE
        taken = Taken()
        scraper = scraper_of(taken, timeout_s=5)
        scraper.replace([target(exporter, 0)])
        async with running(scraper):
            await taken.until(lambda: len(taken.scrapes) >= 2)
            tracemalloc.start()
            try:
                await taken.until(lambda: len(taken.scrapes) >= 6)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert {scrape.failure for scrape in taken.scrapes} == {BadPageReason.BODY_TOO_LARGE}
        # The body cap, its parts, and the buffers of both ends: far from 200 MB, and no growth with
        # repetition.
        assert peak < 12_000_000
        assert exporter.huge_bytes_sent < 12_000_000 * len(taken.scrapes)


async def test_targets_are_replaced_while_it_runs() -> None:
    async with FakeExporter(3) as exporter:
        taken = Taken()
        scraper = scraper_of(taken, timeout_s=5)
        first, second, third = (target(exporter, number) for number in range(3))
        scraper.replace([first, second])
        async with running(scraper):
            await taken.until(lambda: bool(taken.of(0) and taken.of(1)))
            kept = scraper.states[second]
            scraper.replace([second, third])
            assert set(scraper.states) == {second, third}
            assert scraper.states[second] is kept
            before = len(taken.of(0))
            await taken.until(lambda: len(taken.of(2)) >= 3)
            assert len(taken.of(0)) == before
            scraper.replace([])
        assert not scraper.states


async def test_another_process_under_the_same_name_is_another_target() -> None:
    async with FakeExporter(1) as exporter:
        taken = Taken()
        scraper = scraper_of(taken, timeout_s=5)
        scraper.replace([target(exporter, 0, incarnation="pid 7")])
        async with running(scraper):
            await taken.until(lambda: len(taken.scrapes) >= 1)
            scraper.replace([target(exporter, 0, incarnation="pid 8")])
            (state,) = scraper.states.values()
            assert state.last_ok_wall is None
            await taken.until(lambda: taken.scrapes[-1].target.incarnation == "pid 8")


async def test_a_callback_that_fails_does_not_stop_the_beat(caplog: pytest.LogCaptureFixture) -> None:
    taken = Taken()

    async def fails_first(scrape: Scrape) -> None:
        await taken.take(scrape)
        if len(taken.scrapes) == 1:
            raise RuntimeError("no room")

    async with FakeExporter(1) as exporter:
        scraper = Scraper(on_scrape=fails_first, interval_s=INTERVAL_S, timeout_s=5)
        scraper.replace([target(exporter, 0)])
        async with running(scraper):
            await taken.until(lambda: len(taken.scrapes) >= 3)
    assert "was not taken" in caplog.text


async def test_a_beat_that_cannot_be_kept_is_skipped_and_counted() -> None:
    taken, gate = Taken(), asyncio.Event()

    async def stuck(scrape: Scrape) -> None:
        await taken.take(scrape)
        await gate.wait()

    async with FakeExporter(1) as exporter:
        scraper = Scraper(on_scrape=stuck, interval_s=0.02, timeout_s=5)
        scraper.replace([target(exporter, 0)])
        async with running(scraper):
            await taken.until(lambda: len(taken.scrapes) == 1)
            (state,) = scraper.states.values()
            async with asyncio.timeout(10):
                while state.skipped < 3:
                    await asyncio.sleep(0)
            assert len(taken.scrapes) == 1
            gate.set()
            await taken.until(lambda: len(taken.scrapes) >= 2)


async def test_stopping_leaves_nothing_open() -> None:
    async with FakeExporter(5) as exporter:
        exporter.replicas[0].mode = Mode.HANG
        taken = Taken()
        scraper = scraper_of(taken, timeout_s=30)
        scraper.replace([target(exporter, number) for number in range(5)])
        async with running(scraper):
            await taken.until(lambda: all(taken.of(number) for number in range(1, 5)))
        assert len(asyncio.all_tasks()) == 1
        async with asyncio.timeout(10):
            while exporter.open:
                await asyncio.sleep(0)
