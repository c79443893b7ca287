"""P15: 200 autoscalers read their deployment's queue every 15 s, of 2,000 there are, while 500 requests arrive.

They ask `metrics-api` over TLS with the front proxy's certificate, on a few connections, as kube-apiserver does. Its
floor is the ping of the same server. What is read is judged by what was true at the time that it says: a zero after
the burst, or any number once nothing more is written, is an answer that must not be.
"""

import asyncio
import os
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiohttp
import orjson

from controlplane.embedded.processes import Site, table
from deployments.domain.hpa import HpaState, decide
from deployments.domain.hpa.quantity import Quantity
from deployments.telemetry.signals import STALE_PERIODS
from tests.benchmarks.accounting import CpuOf
from tests.benchmarks.autoscale_signal_child import BURST, DEPLOYMENTS, NAMESPACE, PERIOD_S, name
from tests.benchmarks.installation import Installation, Running, installation
from tests.benchmarks.result import Row, median, moved, percentile, quartiles
from tests.certificates import FRONT_PROXY, Authority
from tests.deployments.domain.hpa_cases import hpa, sync

AUTOSCALERS, EVERY_S = 200, 15.0
WORKERS = 5
"""Of the controller that evaluates autoscalers: so many questions at once."""
SYNCS, FULL_SYNCS = 2, 20
ROUNDS, ASKED = 5, 400
LONGEST_S = 30.0
ALLOWED_S = 0.25
"""Between the moment for which a signal is computed and the one in which it is written: its time may be that late."""
ROOT = "/apis/external.metrics.k8s.io/v1beta1/namespaces"


@dataclass(frozen=True, kw_only=True)
class Read:
    """One answer: when it was wanted, how long that took, and what it said."""

    due: float
    took_s: float
    status: int
    quantity: str = ""
    sampled: float = 0.0
    at: float = 0.0


def path(number: int) -> str:
    return f"{ROOT}/{NAMESPACE}/inference_queue_depth?labelSelector=deployment%3D{name(number)}"


def run(*, full: bool) -> list[Row]:
    with installation() as place, tempfile.TemporaryDirectory(prefix="slipway-bench-tls-") as folder:
        authority = Authority.make(Path(folder), called="cluster")
        port = place.ports("metrics")["metrics"]
        server = _server(place, authority, port)
        writer = place.start(
            sys.executable, "-m", "tests.benchmarks.autoscale_signal_child", name="writer"
        ).says("written")
        shown = authority.client(FRONT_PROXY)
        context = ssl.create_default_context(cafile=str(authority.certificate))
        context.load_cert_chain(shown.certificate, shown.key)
        return asyncio.run(_measure(port, context, server, writer, syncs=FULL_SYNCS if full else SYNCS))


def _server(place: Installation, authority: Authority, port: int) -> Running:
    """The process table's row."""
    address = f"127.0.0.1:{port}"
    site = Site(python=sys.executable, web="127.0.0.1:0", live="127.0.0.1:0", metrics=address)
    row = next(each for each in table(site) if each.name == "metrics-api")
    pair = authority.serving("localhost")
    return place.start(
        *row.argv,
        name=row.name,
        SLIPWAY_METRICS_ADDRESS=address,
        SLIPWAY_METRICS_CERT=str(pair.certificate),
        SLIPWAY_METRICS_KEY=str(pair.key),
        SLIPWAY_METRICS_CLIENT_CA=str(authority.certificate),
        SLIPWAY_METRICS_CLIENT_NAMES=FRONT_PROXY,
    ).listens(port)


async def _measure(
    port: int, context: ssl.SSLContext, server: Running, writer: Running, *, syncs: int
) -> list[Row]:
    connector = aiohttp.TCPConnector(ssl=context, limit=WORKERS)
    async with aiohttp.ClientSession(f"https://localhost:{port}", connector=connector) as session:
        await _until_read(session)
        floor, reads = await _rounds(session, server)
        used = CpuOf.trees([server.pid])
        syncing = asyncio.create_task(_sync(session, syncs=syncs))
        await asyncio.sleep(syncs * EVERY_S / 3)
        os.kill(writer.pid, signal.SIGUSR1)
        answers = await syncing
        spent_s = used.since()
        burst = float(writer.says("burst").log.read_text().partition("burst ")[2].split()[0])
        stale = await _after_the_collector(session, writer)
    share = spent_s / (syncs * EVERY_S)
    print(
        f"   {DEPLOYMENTS} deployments, {AUTOSCALERS} autoscalers every {EVERY_S:g} s: metrics-api used {share:.2%} "
        f"of a core, the reading of Redis included; burst after {syncs * EVERY_S / 3:g} s"
    )
    return [*_costs(floor, reads, answers), *_ages(answers), *_truths(answers, stale, burst=burst)]


async def _until_read(session: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(LONGEST_S):
        while (await _ask(session, path(0), due=time.monotonic())).status != 200:
            await asyncio.sleep(0.05)


async def _ask(session: aiohttp.ClientSession, target: str, *, due: float) -> Read:
    async with session.get(target) as answer:
        body, at = await answer.read(), time.time()
    took_s = time.monotonic() - due
    if answer.status != 200 or not target.startswith(ROOT):
        return Read(due=due, took_s=took_s, status=answer.status)
    (item,) = orjson.loads(body)["items"]
    sampled = datetime.fromisoformat(item["timestamp"]).timestamp()
    return Read(due=due, took_s=took_s, status=200, quantity=item["value"], sampled=sampled, at=at)


async def _rounds(session: aiohttp.ClientSession, server: Running) -> tuple[list[float], list[float]]:
    """CPU of the server per ping and per read, in milliseconds, in turns."""
    found: tuple[list[float], list[float]] = [], []
    for _ in range(ROUNDS):
        for kept, paths in zip(
            found, (["/livez"] * ASKED, [path(number) for number in range(ASKED)]), strict=True
        ):
            used = CpuOf.trees([server.pid])
            for target in paths:
                await _ask(session, target, due=time.monotonic())
            kept.append(used.since() / ASKED * 1000)
    return found


async def _sync(session: aiohttp.ClientSession, *, syncs: int) -> list[Read]:
    """Every autoscaler at its own moment of the 15 s, whether or not those before it were answered."""
    begin = time.monotonic()
    tasks = []
    for sync_number in range(syncs):
        for number in range(AUTOSCALERS):
            due = begin + EVERY_S * (sync_number + number / AUTOSCALERS)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            # Spread over all deployments, whose replicas are scraped at different moments.
            asked = path(number * DEPLOYMENTS // AUTOSCALERS)
            tasks.append(asyncio.create_task(_ask(session, asked, due=due)))
    return await asyncio.gather(*tasks)


async def _after_the_collector(session: aiohttp.ClientSession, writer: Running) -> list[Read]:
    """What is read once nothing was written for longer than a signal may be old."""
    os.kill(writer.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(STALE_PERIODS * PERIOD_S + 0.5)
        return [await _ask(session, path(number), due=time.monotonic()) for number in range(AUTOSCALERS)]
    finally:
        os.kill(writer.pid, signal.SIGCONT)


def _costs(floor: Sequence[float], reads: Sequence[float], answers: Sequence[Read]) -> list[Row]:
    took_ms = [one.took_s * 1000 for one in answers]
    void = moved(floor)
    note = f"; void, the floor moved from {floor[0]:.3g} to {floor[-1]:.3g}" if void else ""
    return [
        Row(
            metric=f"server's CPU per read, over the ping of the same server{note}",
            value=median(reads),
            unit="ms",
            baseline=median(floor),
            ratio=median(reads) / median(floor),
            target="<= 1 ms",
            met=None if void else median(reads) <= 1.0,
            n=ASKED * len(reads),
            spread=quartiles(reads),
        ),
        Row(
            metric=f"{AUTOSCALERS} autoscalers' reads, p99 from the moment they were due",
            value=percentile(took_ms, 0.99),
            unit="ms",
            target="<= 20 ms",
            met=percentile(took_ms, 0.99) <= 20.0,
            n=len(took_ms),
            spread=quartiles(took_ms),
        ),
    ]


def _ages(answers: Sequence[Read]) -> list[Row]:
    """A pod is scraped every second and what was scraped is told twice a second: together up to 1.5 s. Behind an API
    server it is scraped every 5 s, which is not measured here. The target names no percentile: the p99 is judged."""
    ages = [one.at - one.sampled for one in answers if one.status == 200]
    return [
        Row(
            metric=f"age of the measurement at the read, {said}",
            value=value,
            unit="s",
            baseline=PERIOD_S,
            ratio=value / PERIOD_S,
            target=target,
            met=value <= 2.0 if target else None,
            n=len(ages),
            spread=quartiles(ages),
        )
        for said, value, target in (
            ("p99", percentile(ages, 0.99), "<= 2 s"),
            ("median", median(ages), ""),
        )
    ]


def _truths(answers: Sequence[Read], stale: Sequence[Read], *, burst: float) -> list[Row]:
    before = [one for one in answers if one.status == 200 and one.sampled < burst]
    after = [one for one in answers if one.status == 200 and one.sampled >= burst + ALLOWED_S]
    exact = {False: _size("0"), True: _size(str(int(BURST)))}
    early = [one for one in before if _size(one.quantity) not in set(exact.values())]
    wrong = [one for one in after if _size(one.quantity) != exact[True]]
    unanswered = [one for one in answers if one.status != 200]
    late_s = min((one.at for one in answers if one.quantity == str(int(BURST))), default=float("nan")) - burst
    return [
        Row(
            metric=f"reads that lead to another size than {exact[True]} ({len(after)} after the burst)",
            value=len(early) + len(wrong) + len(unanswered),
            unit="reads",
            target="0",
            met=bool(after) and not (early or wrong or unanswered),
            n=len(answers),
        ),
        Row(metric="first read of the burst, after it", value=late_s, unit="s", n=1),
        Row(
            metric="reads answered with a number though nothing was written any more",
            value=sum(one.status != 503 for one in stale),
            unit="reads",
            target="0",
            met=all(one.status == 503 for one in stale),
            n=len(stale),
        ),
    ]


def _size(quantity: str) -> int | None:
    """What the horizontal autoscaler makes of a reading at 10 waiting per replica."""
    value = float(Quantity.parse(quantity))
    decision, _ = decide(hpa(least=1, most=100), HpaState(), sync(0, 2, value))
    return decision.raw_recommendation
