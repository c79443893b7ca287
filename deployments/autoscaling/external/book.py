"""The signals that autoscalers ask for, in memory, as fresh as the collector writes them.

One task follows Redis: it reads the sheet when a write is told, and once a period in case a message was lost. A
question is answered from memory alone, so thousands of deployments cost it what one costs. While Redis or the
collector is away the page in memory grows old, and by itself becomes an error.

A deployment without replicas has no measured queue, but a certain one: nothing waits where nothing serves. It is
answered 0 as long as the collector is heard, because an autoscaler without an answer could never scale it down.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from deployments.autoscaling.external.documents import Refusal, Sample
from deployments.autoscaling.external.selector import Operator, Selector
from deployments.telemetry.sheet import SignalLabels
from deployments.telemetry.signals import (
    STALE_PERIODS,
    DeploymentSignals,
    Signal,
    SignalError,
    SignalName,
)
from deployments.telemetry.snapshot import SHEET_WRITTEN, read_sheet

log = structlog.get_logger(__name__)

LISTEN_S: Final = 2.0
RETRY_S: Final = 1.0
NAME: Final = "deployment"
"""The label that has a deployment's name."""
_ZERO_WITHOUT_REPLICAS: Final = frozenset(
    {SignalName.QUEUE_DEPTH, SignalName.IN_FLIGHT, SignalName.REQUEST_RATE}
)


@dataclass(frozen=True, eq=False)
class Series:
    """A deployment that can be asked for. `key` are its labels as the sheet has them."""

    key: bytes
    labels: SignalLabels

    @property
    def said(self) -> str:
        return f"deployment “{self.labels.labels.get(NAME, '')}” in namespace “{self.labels.namespace}”"


@dataclass(kw_only=True, eq=False)
class _Index:
    """Who there is, by namespace and by name. Kept from page to page while it is the same."""

    keys: frozenset[bytes] = frozenset()
    namespaces: dict[str, list[Series]] = field(default_factory=dict)
    names: dict[tuple[str, str], list[Series]] = field(default_factory=dict)

    @classmethod
    def of(cls, keys: frozenset[bytes]) -> "_Index":
        index = cls(keys=keys)
        for key in sorted(keys):
            one = Series(key, SignalLabels.from_json(key))
            namespace = one.labels.namespace
            index.namespaces.setdefault(namespace, []).append(one)
            index.names.setdefault((namespace, one.labels.labels.get(NAME, "")), []).append(one)
        return index

    def select(self, namespace: str, selector: Selector) -> list[Series]:
        return [one for one in self._among(namespace, selector) if selector.matches(one.labels.labels)]

    def _among(self, namespace: str, selector: Selector) -> list[Series]:
        """Autoscalers name their deployment, and are spared the look at all others."""
        for one in selector.requirements:
            if one.key == NAME and one.operator is Operator.IN:
                return [found for name in one.values for found in self.names.get((namespace, name), ())]
        return self.namespaces.get(namespace, [])


@dataclass(frozen=True, kw_only=True)
class Page:
    """One sheet, as it was read. It does not change, so an answer that is made in portions is of one moment."""

    written_at: float
    """On the clock of the book."""
    signals: Mapping[bytes, bytes]
    index: _Index
    clock: Callable[[], float]

    @property
    def age_s(self) -> float:
        return self.clock() - self.written_at

    def select(self, namespace: str, selector: Selector) -> list[Series]:
        """Those of the namespace that the selector matches. Raises Refusal where there are none."""
        found = self.index.select(namespace, selector)
        if not found:
            asked = f" with labels “{selector}”" if selector.requirements else ""
            raise Refusal(404, f"No deployment in namespace “{namespace}”{asked} is served by Slipway.")
        return found

    def sample(self, series: Series, name: SignalName) -> tuple[Sample, float]:
        """The value, and its age in seconds. Raises Refusal where it is not known, or too old to act on."""
        signals = DeploymentSignals.from_json(self.signals[series.key])
        limit_s, age_s = STALE_PERIODS * signals.period_s, self.age_s
        signal = signals[name].aged(age_s, stale_after_s=limit_s)
        if age_s > limit_s:
            raise Refusal.unavailable(
                f"{name} of {series.said}: the collector wrote {age_s:.1f} s ago, and {limit_s:g} s is the limit. "
                "Look whether the collector runs and reaches Redis."
            )
        value = signal.value
        if signal.error is SignalError.NO_REPLICAS and name in _ZERO_WITHOUT_REPLICAS:
            value = 0.0
        if value is None:
            raise Refusal.unavailable(f"{name} of {series.said} {_missing(signal, limit_s=limit_s)}")
        sampled_s = age_s if signal.age_s is None else signal.age_s
        sample = Sample(name=name, labels=series.labels.labels, value=value, at=time.time() - sampled_s)
        return sample, sampled_s


def _missing(signal: Signal, *, limit_s: float) -> str:
    match signal.error:
        case SignalError.NO_REPLICAS:
            return "is not known: it has no replicas."
        case SignalError.NO_REQUESTS:
            return "is not known: no request was answered lately."
    age = "was not measured yet" if signal.age_s is None else f"was measured {signal.age_s:.1f} s ago"
    return (
        f"{age}, and {limit_s:g} s is the limit ({signal.reporting} of {signal.expected} replicas report). "
        "Look whether its replicas answer the collector."
    )


@dataclass(kw_only=True, eq=False)
class Book:
    """Reads the newest page for as long as `follow` runs. The client must not decode responses."""

    redis: Redis
    listen_s: float = LISTEN_S
    retry_s: float = RETRY_S
    clock: Callable[[], float] = time.monotonic
    _page: Page | None = field(default=None, repr=False)
    _index: _Index = field(default_factory=_Index, repr=False)
    _away: bool = False

    @property
    def page(self) -> Page:
        """Raises Refusal where none was ever read."""
        if self._page is None:
            raise Refusal.unavailable(
                "No signals were written lately. Look whether the collector runs, and whether Redis answers."
            )
        return self._page

    async def follow(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                if not self._away:
                    log.warning("redis_unavailable", cause=str(error))
                self._away = True
                await asyncio.sleep(self.retry_s)

    async def _listen(self) -> None:
        async with self.redis.pubsub(ignore_subscribe_messages=True) as written:
            await written.subscribe(SHEET_WRITTEN)
            while True:
                await self.refresh()
                if self._away:
                    log.info("redis_available")
                self._away = False
                await written.get_message(timeout=self.listen_s)

    async def refresh(self) -> None:
        """Reads the sheet; what there was stays where there is none, and grows old. Raises redis.RedisError."""
        asked_at = self.clock()
        sheet = await read_sheet(self.redis)
        if sheet is None:
            return
        if self._index.keys != sheet.lines.keys():
            self._index = _Index.of(frozenset(sheet.lines))
        self._page = Page(
            written_at=asked_at - sheet.age_s, signals=sheet.lines, index=self._index, clock=self.clock
        )
