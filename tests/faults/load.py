"""Open-loop load from a thread of its own: a request leaves when its time has come, answered or not.

Latency counts from the intended time, so a stall is not hidden by the requests that were never sent.
"""

import asyncio
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import aiohttp

from tests.faults.waiting import until

ANSWER_WITHIN_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Ask:
    url: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`due` and `done` on the monotonic clock; `status` 0 where there was none, with the reason in `detail`."""

    due: float
    done: float
    status: int
    retry_after: str | None = None
    detail: str = ""


@dataclass(kw_only=True)
class OpenLoop:
    """Asks in turn, `per_s` in all, while the block runs, or `count` times; leaving it waits for the last answers."""

    asks: Sequence[Ask]
    per_s: float
    count: float = math.inf
    keep_alive: bool = True
    answers: list[Answer] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(ANSWER_WITHIN_S + 10)

    def more(self, count: int, *, within_s: float = 30) -> None:
        """Returns when so many more were answered."""
        goal = len(self.answers) + count
        until(lambda: len(self.answers) >= goal, within_s=within_s, what=f"{count} more answers")

    def failed(self, *, since: float = 0) -> list[Answer]:
        return [one for one in self.answers if one.due >= since and one.status != 200]

    async def _run(self) -> None:
        asking: set[asyncio.Task[None]] = set()
        timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
        connector = aiohttp.TCPConnector(limit=0, force_close=not self.keep_alive)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            due, number = time.monotonic(), 0
            while number < self.count and not self._stop.is_set():
                ask = self.asks[number % len(self.asks)]
                task = asyncio.create_task(self._ask(session, ask, due))
                asking.add(task)
                task.add_done_callback(asking.discard)
                due, number = due + 1 / self.per_s, number + 1
                await asyncio.sleep(max(0, due - time.monotonic()))
            await asyncio.gather(*asking)

    async def _ask(self, session: aiohttp.ClientSession, ask: Ask, due: float) -> None:
        method = "GET" if ask.body is None else "POST"
        try:
            async with session.request(
                method, ask.url, data=ask.body, headers=ask.headers, allow_redirects=False
            ) as response:
                body = await response.read()
                detail = "" if response.status == 200 else body[:300].decode(errors="replace")
                status, retry = response.status, response.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError) as error:
            status, retry, detail = 0, None, repr(error)
        self.answers.append(
            Answer(due=due, done=time.monotonic(), status=status, retry_after=retry, detail=detail)
        )
