"""Open-loop load: a request leaves when its time has come, whether or not earlier ones were answered.

A closed loop would fall silent exactly while something is wrong.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`sent` and `done` on the monotonic clock; `status` 0 where the connection failed."""

    sent: float
    done: float
    status: int
    pid: int = 0
    revision: int = 0
    detail: str = ""


@dataclass(kw_only=True)
class Load:
    answers: list[Answer] = field(default_factory=list)

    @property
    def failed(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status != 200]

    def pids(self, *, after: float = 0) -> set[int]:
        return {answer.pid for answer in self.answers if answer.sent >= after}

    async def more(self, count: int) -> None:
        """Returns when so many more requests were answered."""
        goal = len(self.answers) + count
        async with asyncio.timeout(30):
            while len(self.answers) < goal:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def load(url: str, *, per_s: float = 100, query: str = "", body: bytes = b"{}") -> AsyncIterator[Load]:
    """Sends while the block runs, and waits for the last answers when it is left."""
    result = Load()
    asking: set[asyncio.Task[None]] = set()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask() -> None:
            sent = time.monotonic()
            try:
                async with session.post(url + query, data=body) as response:
                    answered = await response.json(content_type=None)
                    answer = Answer(
                        sent=sent,
                        done=time.monotonic(),
                        status=response.status,
                        pid=answered.get("pid", 0),
                        revision=answered.get("revision", 0),
                        detail=str(answered.get("code", "")),
                    )
            except aiohttp.ClientError as error:
                answer = Answer(sent=sent, done=time.monotonic(), status=0, detail=repr(error))
            result.answers.append(answer)

        async def send() -> None:
            due = time.monotonic()
            while True:
                task = asyncio.create_task(ask())
                asking.add(task)
                task.add_done_callback(asking.discard)
                due += 1 / per_s
                await asyncio.sleep(max(0, due - time.monotonic()))

        sending = asyncio.create_task(send())
        try:
            yield result
        finally:
            sending.cancel()
            if asking:
                await asyncio.wait(asking, timeout=15)
