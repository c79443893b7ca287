"""The micro-batcher: requests come in on the event loop, one thread forms batches and runs the model.

The thread that runs the model also forms the batches: it has the next one in hand the moment a run ends, and
its condition variable keeps delays of microseconds. Refused: forming on the event loop, because uvloop's timers
count whole milliseconds (a delay of 0.5 ms would become none), and a thread pool, because ONNX Runtime gains
nothing from two runs at once on the same threads.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from deployments.stacks.batching import Batching
from deployments.stacks.fastapi.errors import Abandoned, overloaded
from deployments.stacks.fastapi.forming import Lanes, Waiting
from deployments.stacks.fastapi.load import Gauge, Load
from deployments.stacks.fastapi.protocol import Request
from deployments.stacks.fastapi.tensors import Array

type Feeds = dict[str, Array]
type Outputs = Sequence[Array]
type Outcome = Outputs | Exception


class Batcher:
    """`run` is called on the batcher's own thread; `ran` on the event loop, with the rows of every run."""

    def __init__(
        self,
        *,
        batching: Batching,
        run: Callable[[Feeds], Outputs],
        ran: Callable[[int], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._limit = batching.max_queue_size
        self._max_rows = batching.max_batch_size
        self._lanes = Lanes(batching)
        self._run = run
        self._ran = ran
        self._loop = loop
        self._changed = threading.Condition(threading.Lock())
        self._closing = False
        now = time.monotonic()
        self._waiting = Gauge(changed_at=now)
        self._in_flight = Gauge(changed_at=now)
        self._last_run_s = 0.0
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    def enqueue(self, request: Request) -> Waiting:
        """The request in the queue; await its `answer`. Raises TooMany where the queue is full."""
        now = time.monotonic()
        item = Waiting(
            lane=_lane(request),
            rows=request.rows or 1,
            since=now,
            feeds=request.feeds,
            answer=self._loop.create_future(),
        )
        with self._changed:
            if len(self._lanes) >= self._limit:
                raise overloaded(waiting=len(self._lanes), retry_after_s=self._clearing_s())
            idle = not self._lanes
            self._waiting.add(1, now)
            self._in_flight.add(1, now)
            if self._lanes.add(item) or idle:
                self._changed.notify()
        return item

    def abandon(self, item: Waiting) -> None:
        """Nobody waits for this request any more: it is not run if it has not left the queue yet."""
        now = time.monotonic()
        with self._changed:
            if self._lanes.discard(item):
                self._waiting.add(-1, now)
                self._in_flight.add(-1, now)
        if not item.answer.done():
            item.answer.set_exception(Abandoned())

    def load(self) -> Load:
        now = time.monotonic()
        with self._changed:
            return Load(
                waiting=self._waiting.value,
                in_flight=self._in_flight.value,
                waiting_seconds=self._waiting.advance(now),
                in_flight_seconds=self._in_flight.advance(now),
            )

    def close(self) -> None:
        """Let the thread end once the queue is empty. Nothing may be enqueued afterwards."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _clearing_s(self) -> float:
        """A guess at how long the present queue takes."""
        return len(self._lanes) / self._max_rows * self._last_run_s

    def _work(self) -> None:
        while batch := self._next():
            started = time.monotonic()
            outcomes, runs = self._execute(batch)
            self._last_run_s = time.monotonic() - started
            self._loop.call_soon_threadsafe(self._deliver, batch, outcomes, runs)

    def _next(self) -> list[Waiting]:
        """Waits for the next batch; empty once the batcher is closed and the queue too."""
        with self._changed:
            while True:
                now = time.monotonic()
                if batch := self._lanes.take(now):
                    self._waiting.add(-len(batch), now)
                    return batch
                deadline = self._lanes.deadline()
                if deadline is None and self._closing:
                    return []
                self._changed.wait(None if deadline is None else deadline - now)

    def _execute(self, batch: list[Waiting]) -> tuple[list[Outcome], list[int]]:
        """One outcome per request, and the rows of each run that was made.

        A batch that fails, or whose outputs are not one row per row, is run again request by request: one bad
        request must not fail its neighbors.
        """
        outcome = self._attempt([item.feeds for item in batch])
        rows = sum(item.rows for item in batch)
        runs = [rows]
        if len(batch) == 1:
            return [outcome], runs
        if not isinstance(outcome, Exception) and all(array.shape[:1] == (rows,) for array in outcome):
            return _split(outcome, batch), runs
        return [self._attempt([item.feeds]) for item in batch], [*runs, *(item.rows for item in batch)]

    def _attempt(self, feeds: list[Feeds]) -> Outcome:
        try:
            return self._run(_join(feeds))
        except Exception as error:  # noqa: BLE001 - whatever the runtime raises is the request's outcome
            return error

    def _deliver(self, batch: list[Waiting], outcomes: list[Outcome], runs: list[int]) -> None:
        with self._changed:
            self._in_flight.add(-len(batch), time.monotonic())
        for rows in runs:
            self._ran(rows)
        for item, outcome in zip(batch, outcomes, strict=True):
            if item.answer.done():
                continue
            if isinstance(outcome, Exception):
                item.answer.set_exception(outcome)
            else:
                item.answer.set_result(outcome)


def _lane(request: Request) -> Any:
    if request.rows is None:
        return None
    return tuple((name, array.shape[1:]) for name, array in sorted(request.feeds.items()))


def _join(feeds: list[Feeds]) -> Feeds:
    if len(feeds) == 1:
        return feeds[0]
    return {name: np.concatenate([one[name] for one in feeds]) for name in feeds[0]}


def _split(outputs: Outputs, batch: list[Waiting]) -> list[Outcome]:
    ends = list(accumulate(item.rows for item in batch))
    starts = [0, *ends[:-1]]
    return [[array[start:end] for array in outputs] for start, end in zip(starts, ends, strict=True)]
