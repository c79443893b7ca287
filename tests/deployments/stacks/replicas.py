"""Real replica processes, started and stopped by tests, and a client that speaks to them."""

import json
import queue
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from django.conf import settings
from prometheus_client.parser import text_string_to_metric_families

from deployments import stacks

from .models import Made

WAIT_S = 60
REPOSITORY = Path(__file__).parents[3]


@dataclass(kw_only=True)
class Running:
    """A replica process. Its log lines are read as they come, so the pipe never fills."""

    process: subprocess.Popen[bytes]
    lines: list[dict[str, Any]] = field(default_factory=list)
    _fresh: queue.Queue[dict[str, Any] | None] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._fresh.put(json.loads(line))
        self._fresh.put(None)

    def until(self, event: str) -> dict[str, Any]:
        """The next log line with this event; fails where the process ends without it."""
        while (line := self._fresh.get(timeout=WAIT_S)) is not None:
            self.lines.append(line)
            if line["event"] == event:
                return line
        raise AssertionError(f"the replica ended without {event!r}: {self.lines}")

    def ended(self) -> int:
        """The exit code, and every log line in `lines`."""
        code = self.process.wait(WAIT_S)
        while (line := self._fresh.get(timeout=WAIT_S)) is not None:
            self.lines.append(line)
        return code

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    @property
    def port(self) -> int:
        for line in self.lines:
            if line["event"] == "listening":
                return int(line["port"])
        return int(self.until("listening")["port"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> "Running":
        assert self.port
        self.until("ready")
        return self


def configuration(made: Made, **overrides: Any) -> dict[str, Any]:
    return {
        "deployment": "d1",
        "revision": 3,
        "replica": "d1-3-a",
        "model_name": "m",
        "model_version": "7",
        "model_path": str(made.path),
        "signature": made.signature,
        "host": "127.0.0.1",
        "port": 0,
        **overrides,
    }


@contextmanager
def replica(config: Mapping[str, Any], folder: Path) -> Iterator[Running]:
    """Started as the stack says; leaving the block leaves no process behind."""
    path = folder / f"{config['replica']}.json"
    path.write_text(json.dumps(config))
    command = stacks.load("fastapi").start_command(
        path,
        artifact_format=config.get("model_format", "onnx"),
        toolchains=settings.ENVIRONMENT.toolchains,
    )
    assert command is not None
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE) as process:
        try:
            yield Running(process=process)
        finally:
            process.kill()


@dataclass(frozen=True, kw_only=True)
class Answered:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def data(self, name: str = "y") -> list[Any]:
        """The elements of a JSON output."""
        found: list[Any] = next(one["data"] for one in self.json["outputs"] if one["name"] == name)
        return found


@dataclass(frozen=True, kw_only=True)
class Client:
    """Requests over kept-alive connections."""

    session: aiohttp.ClientSession

    async def send(self, method: str, path: str, **options: Any) -> Answered:
        async with self.session.request(method, path, **options) as response:
            return Answered(
                status=response.status, headers=response.headers.copy(), body=await response.read()
            )

    async def get(self, path: str) -> Answered:
        return await self.send("GET", path)

    async def infer(self, document: Any, *, path: str = "/v2/models/m/infer", **headers: str) -> Answered:
        return await self.send("POST", path, json=document, headers=headers)

    async def scrape(self) -> "Page":
        answered = await self.get("/metrics")
        assert answered.status == 200
        return Page.of(answered.body.decode())


@asynccontextmanager
async def client(running: Running) -> AsyncIterator[Client]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(running.url, connector=connector) as session:
        yield Client(session=session)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A metrics page as the full Prometheus parser reads it."""

    samples: Mapping[tuple[str, str], float]

    @classmethod
    def of(cls, text: str) -> "Page":
        samples = {}
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                label = next(
                    (one.labels[name] for name in ("code", "reason", "le") if name in one.labels), ""
                )
                samples[one.name, label] = one.value
        return cls(samples=samples)

    def __call__(self, name: str, label: str = "") -> float:
        return self.samples[f"slipway_{name}", label]

    def errors(self) -> dict[str, float]:
        """The reasons that have been counted."""
        return {label: n for (name, label), n in self.samples.items() if name == "slipway_errors_total" and n}


def values(name: str, dtype: str, data: list[Any], *, shape: list[int] | None = None) -> dict[str, Any]:
    """One JSON tensor."""
    return {"name": name, "datatype": dtype, "shape": shape or [len(data)], "data": data}


def request(*tensors: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"inputs": list(tensors), **more}
