"""Load from a process of its own, at times decided beforehand: `Load(...)` says what, `drive` does it.

Open loop: requests are due at the times of a Poisson process with a fixed seed, and a latency counts from when its
request was due, so that a server that stalls cannot hide the requests it kept from being sent. Closed loop: each
of so many clients asks again once it was answered; only for finding out how much a server can do.

A bare asyncio protocol at about 50 us a request, because on two cores a client that costs as much as the server
measures itself. select() instead of epoll: it waits in microseconds, where epoll rounds up to milliseconds.
"""

import asyncio
import base64
import json
import random
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from controlplane.settings.environment import REPOSITORY
from tests.benchmarks.result import percentile

MOST_CONNECTIONS = 900  # select() takes descriptors below 1024
TIMEOUT_S = 10.0
NO_ANSWER = 0
START_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Load:
    """`urls` are balanced over by who has the fewest requests open. Without a `rate_per_s` it is a closed loop."""

    urls: tuple[str, ...]
    body: bytes
    headers: dict[str, str]
    seconds: float
    rate_per_s: float = 0.0
    clients: int = 16
    seed: int = 20261124

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"body": base64.b64encode(self.body).decode()}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Load":
        return cls(**found | {"body": base64.b64decode(found["body"]), "urls": tuple(found["urls"])})


@dataclass(frozen=True, kw_only=True)
class Answers:
    """One entry per request: when it was due (s, monotonic), its latency (ms), its status (0: none came).

    `late_ms` is how much after its time the generator sent it; `cpu_s` is what the generator used.
    """

    due: npt.NDArray[np.float64]
    latency_ms: npt.NDArray[np.float64]
    late_ms: npt.NDArray[np.float64]
    status: npt.NDArray[np.int64]
    seconds: float
    cpu_s: float

    @property
    def failed(self) -> int:
        return int((self.status != 200).sum())

    @property
    def per_s(self) -> float:
        """Requests that were answered well."""
        return float((self.status == 200).sum()) / self.seconds

    @property
    def cpu_ms(self) -> float:
        """The generator's own CPU for one request."""
        return self.cpu_s / len(self.due) * 1000

    def percentile_ms(self, share: float) -> float:
        """Nearest rank, over all requests: one that failed counts with the time until it did."""
        return percentile(self.latency_ms.tolist(), share)

    def between(self, begin: float, end: float) -> "Answers":
        """Those that were due in this part."""
        part = (self.due >= begin) & (self.due < end)
        return Answers(
            due=self.due[part],
            latency_ms=self.latency_ms[part],
            late_ms=self.late_ms[part],
            status=self.status[part],
            seconds=end - begin,
            cpu_s=self.cpu_s * float(part.mean()) if len(part) else 0.0,
        )


@dataclass(kw_only=True)
class Driving:
    """Load that is under way. `result` waits for its end; `stop` ends it early with what there is."""

    process: "subprocess.Popen[bytes]"

    def stop(self) -> Answers:
        self.process.send_signal(signal.SIGTERM)
        return self.result()

    def result(self) -> Answers:
        out, _ = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, self.process.returncode
        found = json.loads(out)
        table = np.array(found["requests"], dtype=np.float64).reshape(-1, 4)
        return Answers(
            due=table[:, 0],
            latency_ms=table[:, 1],
            late_ms=table[:, 2],
            status=table[:, 3].astype(np.int64),
            seconds=found["seconds"],
            cpu_s=found["cpu_s"],
        )


@contextmanager
def driving(load: Load) -> Iterator[Driving]:
    """The load while the block runs; killed at the end of it if it still goes on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.generator"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(load.to_json()).encode() + b"\n")
    process.stdin.flush()
    try:
        yield Driving(process=process)
    finally:
        process.kill()
        process.wait()


def drive(load: Load) -> Answers:
    with driving(load) as going:
        return going.result()


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, server: "_Server") -> None:
        self.server = server
        self.waiting = b""
        self.answer: asyncio.Future[int] | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        end = self.waiting.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.waiting[:end].lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(self.waiting) < end + 4 + length:
            return
        status = int(self.waiting[9:12])
        self.waiting = b""
        if b"connection: close" in head:
            self.close()
        self._tell(status)

    def connection_lost(self, exc: Exception | None) -> None:
        self.close()
        self._tell(NO_ANSWER)

    def close(self) -> None:
        self.closed = True
        self.transport.close()

    def _tell(self, status: int) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(status)


class _Server:
    """One address with its connections and the number of requests that are open there."""

    def __init__(self, url: str, *, body: bytes, headers: dict[str, str]) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.host, self.port = parts.hostname, parts.port or 80
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        self.free: list[_Connection] = []
        self.open = 0

    async def ask(self) -> int:
        """The status; NO_ANSWER where the connection failed or nothing came in time."""
        self.open += 1
        connection: _Connection | None = None
        try:
            connection = await self._connection()
            connection.answer = asyncio.get_running_loop().create_future()
            connection.transport.write(self.request)
            async with asyncio.timeout(TIMEOUT_S):
                status = await connection.answer
        except (OSError, TimeoutError):
            status = NO_ANSWER
            if connection is not None:
                connection.close()
        finally:
            self.open -= 1
        if connection is not None and not connection.closed:
            self.free.append(connection)
        return status

    async def _connection(self) -> _Connection:
        while self.free:
            kept = self.free.pop()
            if not kept.closed:
                return kept
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(lambda: _Connection(self), self.host, self.port))[1]


@dataclass(kw_only=True)
class _Run:
    load: Load
    servers: list[_Server]
    requests: list[tuple[float, float, float, int]] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(MOST_CONNECTIONS)

    async def one(self, due: float) -> None:
        async with self.slots:
            server = min(self.servers, key=lambda each: each.open)
            sent = time.monotonic()
            status = await server.ask()
        done = time.monotonic()
        self.requests.append((due, (done - due) * 1000, (sent - due) * 1000, status))

    async def open_loop(self) -> float:
        """Returns how long it sent."""
        times = random.Random(self.load.seed)
        begin = time.monotonic() + START_S
        end = begin + self.load.seconds
        due = begin
        asking: set[asyncio.Task[None]] = set()
        while due < end and not self.stopping.is_set():
            pause = due - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            task = asyncio.create_task(self.one(due))
            asking.add(task)
            task.add_done_callback(asking.discard)
            due += times.expovariate(self.load.rate_per_s)
        ended = time.monotonic()
        if asking:
            await asyncio.wait(asking)
        return ended - begin

    async def closed_loop(self) -> float:
        begin = time.monotonic()
        end = begin + self.load.seconds

        async def client() -> None:
            while (now := time.monotonic()) < end and not self.stopping.is_set():
                await self.one(now)

        await asyncio.gather(*(client() for _ in range(self.load.clients)))
        return time.monotonic() - begin


async def _main() -> None:
    load = Load.from_json(json.loads(sys.stdin.readline()))
    servers = [_Server(url, body=load.body, headers=load.headers) for url in load.urls]
    run = _Run(load=load, servers=servers)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, run.stopping.set)
    cpu = time.process_time()
    seconds = await (run.open_loop() if load.rate_per_s else run.closed_loop())
    used = time.process_time() - cpu
    json.dump({"requests": run.requests, "seconds": seconds, "cpu_s": used}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(_main(), loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector()))
