"""What is known in memory is as fresh as Redis, and grows old by itself when nothing more is heard."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from deployments.autoscaling.external import selector
from deployments.autoscaling.external.book import Book, Page
from deployments.autoscaling.external.documents import Refusal, Sample
from deployments.telemetry.sheet import SignalLabels
from deployments.telemetry.signals import DeploymentSignals, SignalError, SignalName
from deployments.telemetry.snapshot import write_signals
from tests.deployments.autoscaling.external.signals import (
    NO_REPLICAS,
    PERIOD_S,
    labels,
    measured,
    of,
    serving,
)

LIMIT_S = 3 * PERIOD_S


@dataclass(kw_only=True)
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(kw_only=True)
class Reader:
    """A book whose time is moved by hand; Redis's is not."""

    redis: Redis
    book: Book
    clock: Clock

    async def write(self, signals: Sequence[DeploymentSignals], names: Sequence[str]) -> None:
        named = {one.deployment: name for one, name in zip(signals, names, strict=True)}
        known = {key: labels(int(key[1:]), name) for key, name in named.items()}
        await write_signals(self.redis, signals, labels=known)
        await self.book.refresh()

    def ask(self, name: SignalName, text: str = "", *, namespace: str = "models") -> list[Sample]:
        page = self.book.page
        return [page.sample(one, name)[0] for one in page.select(namespace, selector.parse(text))]

    def values(self, name: SignalName, text: str = "") -> dict[str, float]:
        return {one.labels["deployment"]: one.value for one in self.ask(name, text)}

    def refusal(self, name: SignalName, text: str = "", *, namespace: str = "models") -> Refusal:
        with pytest.raises(Refusal) as refused:
            self.ask(name, text, namespace=namespace)
        return refused.value


@pytest.fixture
def reader(redis: Redis) -> Reader:
    clock = Clock()
    return Reader(redis=redis, book=Book(redis=redis, clock=clock), clock=clock)


async def test_every_deployment_with_labels_is_found_by_them(reader: Reader) -> None:
    await reader.write([serving(1, depth=7), serving(2, depth=37.5)], ["bert", "resnet"])
    assert reader.values(SignalName.QUEUE_DEPTH) == {"bert": 7, "resnet": 37.5}
    assert reader.values(SignalName.QUEUE_DEPTH, "deployment in (bert,resnet)") == {"bert": 7, "resnet": 37.5}
    assert reader.values(SignalName.QUEUE_DEPTH, "deployment!=bert") == {"resnet": 37.5}
    assert reader.values(SignalName.QUEUE_DEPTH, "key=d1,team=search") == {"bert": 7}


async def test_an_idle_deployment_is_an_explicit_zero_and_has_no_latency(reader: Reader) -> None:
    await reader.write([serving(1)], ["bert"])
    for name in (SignalName.QUEUE_DEPTH, SignalName.IN_FLIGHT, SignalName.REQUEST_RATE):
        assert reader.values(name) == {"bert": 0}
    refused = reader.refusal(SignalName.P99_LATENCY)
    assert (refused.code, "no request" in refused.message) == (503, True)


async def test_a_deployment_without_replicas_is_zero_while_the_collector_is_heard(reader: Reader) -> None:
    await reader.write([of(1, NO_REPLICAS)], ["bert"])
    for name in (SignalName.QUEUE_DEPTH, SignalName.IN_FLIGHT, SignalName.REQUEST_RATE):
        assert reader.values(name) == {"bert": 0}
    assert reader.refusal(SignalName.P99_LATENCY).code == 503
    reader.clock.now_s += LIMIT_S + 0.1
    for name in SignalName:
        assert reader.refusal(name).code == 503


async def test_a_sample_has_its_own_time_not_that_of_the_answer(reader: Reader) -> None:
    await reader.write([of(1, measured(7, age_s=3))], ["bert"])
    (early,) = reader.ask(SignalName.QUEUE_DEPTH)
    reader.clock.now_s += 2
    (late,) = reader.ask(SignalName.QUEUE_DEPTH)
    # The reader's wall clock has not moved by those two seconds, so what is two seconds older says so.
    assert early.at - late.at == pytest.approx(2, abs=0.5)


@pytest.mark.faults
async def test_F39_a_signal_that_was_old_when_written_is_an_error_with_its_age_and_the_limit(
    reader: Reader,
) -> None:
    stale = measured(None, age_s=14.2, error=SignalError.STALE)
    await reader.write([of(1, stale), serving(2)], ["bert", "resnet"])
    assert reader.values(SignalName.QUEUE_DEPTH, "deployment=resnet") == {"resnet": 0}
    for text in ("deployment=bert", "deployment in (bert,resnet)", ""):
        refused = reader.refusal(SignalName.QUEUE_DEPTH, text)
        assert refused.code == 503
        assert "deployment “bert” in namespace “models” was measured 14.2 s ago, and 6 s is the limit" in (
            refused.message
        )


@pytest.mark.faults
async def test_F39_when_nothing_more_is_written_every_number_becomes_an_error(reader: Reader) -> None:
    await reader.write([serving(1, depth=7, rate=1)], ["bert"])
    reader.clock.now_s += LIMIT_S - 1  # the sample was half a second old when it was written
    assert reader.values(SignalName.QUEUE_DEPTH) == {"bert": 7}
    reader.clock.now_s += 2
    for name in SignalName:
        assert reader.refusal(name).code == 503
    await reader.redis.flushdb()  # after 60 s Redis has nothing left
    await reader.book.refresh()
    assert reader.refusal(SignalName.QUEUE_DEPTH).code == 503


@pytest.mark.faults
async def test_F39_what_lay_in_redis_before_this_process_began_is_as_old_as_it_is(reader: Reader) -> None:
    await write_signals(reader.redis, [serving(1, depth=7)], labels={"d1": labels(1, "bert")})
    await reader.redis.pexpire("slipway:signal-sheet", 50_000)  # as if written 10 s ago
    await reader.book.refresh()
    assert reader.refusal(SignalName.QUEUE_DEPTH).code == 503


async def test_a_replica_that_was_not_scraped_yet_is_not_an_idle_one(reader: Reader) -> None:
    await reader.write([of(1, measured(None, age_s=None, error=SignalError.STALE))], ["bert"])
    assert "was not measured yet" in reader.refusal(SignalName.QUEUE_DEPTH).message


async def test_before_anything_was_read_nobody_is_told_that_there_is_nothing(reader: Reader) -> None:
    await reader.book.refresh()
    with pytest.raises(Refusal) as refused:
        _ = reader.book.page
    assert refused.value.code == 503


async def test_what_is_not_there_is_not_found(reader: Reader) -> None:
    await reader.write([serving(1)], ["bert"])
    assert reader.refusal(SignalName.QUEUE_DEPTH, "deployment=gone").code == 404
    assert reader.refusal(SignalName.QUEUE_DEPTH, namespace="elsewhere").code == 404
    await reader.write([], [])
    assert reader.refusal(SignalName.QUEUE_DEPTH).code == 404


async def test_deployments_come_go_and_move_between_namespaces(reader: Reader) -> None:
    await reader.write([serving(1, depth=1)], ["bert"])
    assert reader.refusal(SignalName.QUEUE_DEPTH, "deployment=resnet").code == 404
    await reader.write([serving(1, depth=2), serving(2, depth=3)], ["bert", "resnet"])
    assert reader.values(SignalName.QUEUE_DEPTH) == {"bert": 2, "resnet": 3}
    moved = {"d1": labels(1, "bert", namespace="elsewhere"), "d2": labels(2, "resnet")}
    await write_signals(reader.redis, [serving(1, depth=4), serving(2, depth=5)], labels=moved)
    await reader.book.refresh()
    assert reader.values(SignalName.QUEUE_DEPTH) == {"resnet": 5}
    assert [one.value for one in reader.ask(SignalName.QUEUE_DEPTH, namespace="elsewhere")] == [4]


async def test_a_write_that_does_not_know_who_there_is_leaves_the_sheet(reader: Reader) -> None:
    await reader.write([serving(1, depth=7)], ["bert"])
    await write_signals(reader.redis, [])
    await reader.book.refresh()
    assert reader.values(SignalName.QUEUE_DEPTH) == {"bert": 7}


async def test_thousands_of_deployments_are_told_apart(reader: Reader) -> None:
    count = 4000
    numbers = range(1, count + 1)
    await reader.write(
        [serving(number, depth=number) for number in numbers], [f"model-{number}" for number in numbers]
    )
    for number in numbers:
        name = f"model-{number}"
        assert reader.values(SignalName.QUEUE_DEPTH, f"deployment={name}") == {name: number}
    assert sum(reader.values(SignalName.QUEUE_DEPTH).values()) == count * (count + 1) / 2


@pytest.fixture
async def followed(redis: Redis) -> Book:
    """It looks by itself only every minute: what it hears earlier, it was told."""
    await write_signals(redis, [serving(1, depth=1)], labels={"d1": labels(1, "bert")})
    return Book(redis=redis, listen_s=60, retry_s=0.05)


async def test_a_write_of_the_collector_is_heard_at_once(redis: Redis, followed: Book) -> None:
    following = asyncio.create_task(followed.follow())
    try:
        assert await _depth(followed, lambda depth: depth == 1)
        await write_signals(redis, [serving(1, depth=500)], labels={"d1": labels(1, "bert")})
        assert await _depth(followed, lambda depth: depth == 500)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@pytest.mark.faults
async def test_F39_a_lost_connection_to_redis_is_taken_up_again(redis: Redis, followed: Book) -> None:
    following = asyncio.create_task(followed.follow())
    try:
        assert await _depth(followed, lambda depth: depth == 1)
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await write_signals(redis, [serving(1, depth=500)], labels={"d1": labels(1, "bert")})
        assert await _depth(followed, lambda depth: depth == 500)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _depth(book: Book, wanted: Callable[[float], bool]) -> bool:
    """Waits for what another task reads; the bound is only there to fail."""
    everything = selector.parse("")
    async with asyncio.timeout(20):
        while True:
            try:
                page: Page = book.page
                (series,) = page.select("models", everything)
                if wanted(page.sample(series, SignalName.QUEUE_DEPTH)[0].value):
                    return True
            except Refusal:
                pass
            await asyncio.sleep(0.01)


def test_the_same_labels_are_the_same_bytes() -> None:
    one = SignalLabels(namespace="n", labels={"a": "1", "b": "2"})
    assert one.to_json() == SignalLabels(namespace="n", labels={"b": "2", "a": "1"}).to_json()
