"""Sends the bounded traffic that people asked for on their own endpoints.

Open loop: requests leave by the clock, not when the last answer is back, so a slow endpoint is not spared and its
queue becomes visible. One asyncio process for all `Load` rows; the rows are read every second and bound it: a row
that ended, or a process that died, sends nothing more. What cannot leave in time is counted as failed, never
made up for in a burst. Refused: a load that a browser sends, and one without an end.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
import structlog
from django.db import InterfaceError, OperationalError, close_old_connections, connections
from django.db.models import F
from django.db.models.functions import Now

from controlplane.core import storage
from controlplane.core.errors import SlipwayError
from controlplane.registry.models import Dataset, Variant
from deployments.domain.example import body_of_item, random_body
from deployments.domain.workload import TargetStatus
from deployments.models import Load

log = structlog.get_logger(__name__)

POLL_S = 1.0
TIMEOUT_S = 10.0
MOST_OPEN = 1000
"""Requests of one endpoint that may wait for an answer at once; the next ones fail here, not there."""
BODIES = 32
LATE_S = 1.0
CLOSE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One active row as it is read: where to send, what, and how often."""

    load_id: int
    variant_id: int
    url: str
    rate_per_s: float
    left_s: float


@dataclass(kw_only=True)
class Sender:
    """The traffic of one row."""

    session: aiohttp.ClientSession
    job: Job
    bodies: Sequence[bytes]
    sent: int = 0
    failed: int = 0
    _open: set[asyncio.Task[None]] = field(default_factory=set)
    _end: float = 0.0

    async def run(self) -> None:
        """Until cancelled, or the row's time is over."""
        self._end = time.monotonic() + self.job.left_s
        due, count = time.monotonic(), 0
        while (now := time.monotonic()) < self._end:
            if now < due:
                await asyncio.sleep(due - now)
            due = max(due + 1 / self.job.rate_per_s, now - LATE_S)
            self._send(self.bodies[count % len(self.bodies)])
            count += 1

    def _send(self, body: bytes) -> None:
        self.sent += 1
        if len(self._open) >= MOST_OPEN:
            self.failed += 1
            return
        task = asyncio.create_task(self._ask(body))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _ask(self, body: bytes) -> None:
        try:
            async with self.session.post(self.job.url, data=body) as answer:
                await answer.read()
                self.failed += answer.status >= 400
        except (aiohttp.ClientError, TimeoutError):
            self.failed += 1

    def take(self) -> tuple[int, int]:
        """What was sent and what failed since the last call."""
        counted = self.sent, self.failed
        self.sent = self.failed = 0
        return counted

    def follow(self, job: Job) -> None:
        """Takes the row's present rate and end; what is on its way is left alone."""
        self.job = job
        self._end = time.monotonic() + job.left_s

    @property
    def idle(self) -> bool:
        return not self._open

    async def close(self) -> None:
        """Waits a moment for answers, then gives up on the rest, which count as failed."""
        if self._open:
            _, late = await asyncio.wait(self._open, timeout=CLOSE_S)
            self.failed += len(late)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


@dataclass(kw_only=True)
class Loads:
    """All rows. One sender per row; a row whose variant or address moved gets a new one.

    A sender that ended is kept until its last answer is counted: cutting requests off would show up as errors
    of an endpoint that did nothing wrong.
    """

    _running: dict[int, tuple[Sender, asyncio.Task[None]]] = field(default_factory=dict)
    _ending: list[tuple[int, Sender]] = field(default_factory=list)
    _database: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "database"))

    async def run(self, stopping: asyncio.Event) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        headers = {"Content-Type": "application/json"}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, headers=headers, connector=connector) as session:
            while not stopping.is_set():
                await self._poll(session)
                try:
                    await asyncio.wait_for(stopping.wait(), timeout=POLL_S)
                except TimeoutError:
                    continue
            self._settle({})
            await asyncio.gather(*(sender.close() for _, sender in self._ending))
            await self._in_database(_count, self._taken())
        await self._in_database(connections.close_all)
        self._database.shutdown()

    async def _in_database[**P, R](self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """One thread, so one connection; a slow database delays the counts, never the traffic."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._database, lambda: work(*args, **kwargs))

    async def _poll(self, session: aiohttp.ClientSession) -> None:
        try:
            jobs = await self._in_database(_look, self._taken())
        except (OperationalError, InterfaceError) as error:
            # Without the rows nothing may be sent: they are what bounds it.
            log.warning("database_unavailable", cause=str(error).splitlines()[0])
            jobs = {}
        self._settle(jobs)
        for load_id, job in jobs.items():
            if load_id in self._running:
                self._running[load_id][0].follow(job)
                continue
            bodies = await self._in_database(bodies_for, job.variant_id)
            sender = Sender(session=session, job=job, bodies=bodies)
            self._running[load_id] = sender, asyncio.create_task(sender.run())

    def _taken(self) -> list[tuple[int, int, int]]:
        """Row, sent, failed since the last call. Senders whose last answer is counted are let go."""
        senders = [(load_id, sender) for load_id, (sender, _) in self._running.items()] + self._ending
        self._ending = [(load_id, sender) for load_id, sender in self._ending if not sender.idle]
        return [(load_id, *sender.take()) for load_id, sender in senders]

    def _settle(self, jobs: Mapping[int, Job]) -> None:
        """Ends every sender whose row is over or points elsewhere, or whose time was up before."""
        for load_id, (sender, task) in list(self._running.items()):
            if task.done() or not _same(jobs.get(load_id), sender.job):
                del self._running[load_id]
                task.cancel()
                self._ending.append((load_id, sender))


def _same(job: Job | None, running: Job) -> bool:
    return job is not None and (job.variant_id, job.url) == (running.variant_id, running.url)


def _look(taken: Sequence[tuple[int, int, int]]) -> dict[int, Job]:
    """Writes what was counted, then reads the rows that may send now. One query and one per row counted."""
    close_old_connections()
    _count(taken)
    rows = Load.objects.filter(until__gt=Now(), deployment__removing=False).annotate(left=F("until") - Now())
    rows = rows.select_related("deployment__live_revision__variant__version__model")
    return {job.load_id: job for row in rows if (job := _job(row)) is not None}


def _job(row: Load) -> Job | None:
    deployment = row.deployment
    if deployment.live_revision is None or not deployment.observed or deployment.api_key_sha256:
        return None
    address = TargetStatus.from_json(deployment.observed).address
    if address is None:
        return None
    variant = deployment.live_revision.variant
    return Job(
        load_id=row.pk,
        variant_id=variant.pk,
        url=f"{address}/v2/models/{variant.version.model.name}/infer",
        rate_per_s=row.rate_per_s,
        left_s=row.left.total_seconds(),  # type: ignore[attr-defined]
    )


def _count(taken: Sequence[tuple[int, int, int]]) -> None:
    for load_id, sent, failed in taken:
        if sent or failed:
            Load.objects.filter(pk=load_id).update(sent=F("sent") + sent, failed=F("failed") + failed)


def bodies_for(variant_id: int) -> list[bytes]:
    """Encoded requests: items of an evaluation set of the model where it has one that fits, else random values."""
    variant = Variant.objects.select_related("version__model").get(pk=variant_id)
    documents = _items(variant) or [
        random_body(variant.signature, random.Random(seed))  # noqa: S311 - traffic, not a secret
        for seed in range(BODIES)
    ]
    return [json.dumps(document).encode() for document in documents]


def _items(variant: Variant) -> list[dict[str, Any]]:
    sets = Dataset.objects.filter(model=variant.version.model, role=Dataset.Role.EVALUATION)
    dataset = sets.select_related("artifact").first()
    if dataset is None or variant.signature.get("batch_axis") != 0:
        return []
    names = [one["name"] for one in variant.signature["inputs"]]
    try:
        with np.load(storage.path(dataset.artifact.sha256), allow_pickle=False) as arrays:
            if not set(names) <= set(arrays.files):
                return []
            chosen = {name: arrays[name][:BODIES].tolist() for name in names}
    except (OSError, ValueError, SlipwayError) as error:
        log.warning("dataset_not_read", dataset=dataset.pk, cause=str(error).splitlines()[0])
        return []
    count = min(len(items) for items in chosen.values())
    return [
        body_of_item(variant.signature, {name: chosen[name][place] for name in names})
        for place in range(count)
    ]
