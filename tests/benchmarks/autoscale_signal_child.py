"""What the collector does for 2,000 deployments, without the scraping: readings, signals, and the writes.

Each deployment has one replica, scraped at its own moment of the period, as the scraper spreads them; a reading is
as old at the write as it would be. SIGUSR1 fills every queue; the moment is printed, in epoch seconds.
"""

import asyncio
import os
import signal
import time

from redis.asyncio import Redis

from deployments.telemetry.measuring import ASKED_PERIOD_S, TOLD_EVERY_S
from deployments.telemetry.scrape import Target
from deployments.telemetry.series import Measured, Reading
from deployments.telemetry.sheet import SignalLabels
from deployments.telemetry.signals import SignalBook
from deployments.telemetry.snapshot import write_signals
from tests.deployments.telemetry.fake_exporter import METRICS

DEPLOYMENTS = 2000
NAMESPACE = "models"
PERIOD_S = ASKED_PERIOD_S
BURST = 500.0


def name(number: int) -> str:
    return f"model-{number}"


def key(number: int) -> str:
    return f"d{number}"


async def write(redis: Redis) -> None:
    numbers = range(DEPLOYMENTS)
    targets = [
        Target(deployment=key(one), revision=1, replica="r", url="", metrics=METRICS) for one in numbers
    ]
    labels = {
        key(one): SignalLabels(
            namespace=NAMESPACE, labels={"deployment": name(one), "key": key(one), "team": "bench"}
        )
        for one in numbers
    }
    book, burst_at = SignalBook(period_s=PERIOD_S), float("inf")
    wanted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, wanted.set)
    due = begun = time.monotonic()
    while True:
        if wanted.is_set():
            burst_at = time.monotonic()
            wanted.clear()
            print(f"burst {time.time()}", flush=True)
        now, wall = time.monotonic(), time.time()
        book.expect({one.deployment: [one] for one in targets}, now=now)
        for number, target in enumerate(targets):
            at = now - (now - begun - PERIOD_S * number / DEPLOYMENTS) % PERIOD_S
            depth = Measured(gauge=BURST if at >= burst_at else 0.0)
            book.take(
                Reading(target=target, at_monotonic=at, at_wall=wall, queue_depth=depth, in_flight=depth)
            )
        signals = [book.signals(one.deployment, now=now, at_wall=wall) for one in targets]
        await write_signals(redis, signals, labels=labels)
        print("written", flush=True)
        due = max(due + TOLD_EVERY_S, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


async def main() -> None:
    async with Redis.from_url(os.environ["REDIS_URL"]) as redis:
        await write(redis)


if __name__ == "__main__":
    asyncio.run(main())
