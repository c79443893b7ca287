"""Asks a replica whether it is ready or alive, as the Open Inference Protocol says it answers."""

import asyncio
from dataclasses import dataclass

import aiohttp

READY = "/v2/health/ready"
LIVE = "/v2/health/live"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`status` is None where nothing came back in time."""

    status: int | None

    @property
    def ok(self) -> bool:
        return self.status == 200

    def words(self, what: str) -> str:
        return f"{what} is not answered" if self.status is None else f"{what} answers {self.status}"


async def ask(session: aiohttp.ClientSession, port: int, path: str, *, timeout_s: float) -> Answer:
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with session.get(f"http://127.0.0.1:{port}{path}", timeout=timeout) as response:
            return Answer(status=response.status)
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError):  # noqa: UP041
        return Answer(status=None)
