"""S3: the queue of a deployment steps from nothing to ten times its target; when does the autoscaler decide, and
when does the new replica serve?

The same replica is also started bare, as a process, while the same load keeps the first one busy: what a start
costs on this machine at that moment. A request has 16 rows and a batch holds one request, so a waiting client is
a waiting request, and sending them costs next to nothing.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from controlplane.embedded.home import Home
from controlplane.embedded.ports import choose
from controlplane.settings.environment import REPOSITORY
from deployments.domain.spec import default_autoscaling
from deployments.domain.workload import Batching, TargetStatus
from tests.benchmarks.generator import Answers, Load, driving
from tests.benchmarks.model import request
from tests.benchmarks.product_endpoint import LOOK_S, Served, served
from tests.benchmarks.result import Row, compared, median, quartiles

ROWS = 16
BATCHING = Batching(max_batch_size=ROWS, max_queue_delay_microseconds=0, max_queue_size=1000)
TARGET = 10
"""Waiting requests per replica, the default autoscaling's."""
CLIENTS = 10 * TARGET + 1
INTERVAL_S = 2.0
ROUNDS, FULL_ROUNDS = 5, 15
SETTLE_S = 1.5
QUIET_S = 2.5 * INTERVAL_S
"""Until the signals have forgotten the load before."""
APART_S = 16.0
"""The default policy counts what was added in the last 15 s; steps must not see each other."""
SEED = 20261124
LONGEST_S = 60.0


def run(*, full: bool) -> list[Row]:
    spec = {
        "batching": BATCHING.to_json(),
        "autoscaling": default_autoscaling(min_replicas=1, max_replicas=2, batching=BATCHING),
    }
    decisions, starts, bare, sent = [], [], [], []
    phases = random.Random(SEED)
    with served(spec) as endpoint:
        body, headers = request(ROWS)
        load = Load(urls=(endpoint.url,), body=body, headers=headers, seconds=LONGEST_S, clients=CLIENTS)
        for _ in range(FULL_ROUNDS if full else ROUNDS):
            stepped = time.monotonic()
            bare.append(_bare(endpoint, load))
            _rest(endpoint)
            time.sleep(max(QUIET_S, stepped + APART_S - time.monotonic()))
            decided_s, serving_s, answers = _step(endpoint, load, phase=phases.random())
            decisions.append(decided_s)
            starts.append(serving_s)
            sent.append(answers)
    print(
        f"   from the step to the new replica's first answer: {median(_sums(decisions, starts)):.2f} s; the "
        f"generator used {median([one.cpu_ms for one in sent]):.2f} ms CPU a request, "
        f"{median([one.cpu_s / one.seconds for one in sent]):.0%} of a core"
    )
    return [
        Row(
            metric=f"step of the queue to {CLIENTS - 1} waiting, to the stored decision",
            value=median(decisions),
            unit="s",
            baseline=INTERVAL_S,
            ratio=median(decisions) / INTERVAL_S,
            target=f"<= {INTERVAL_S + 1:g} s",
            met=median(decisions) <= INTERVAL_S + 1,
            n=len(decisions),
            spread=quartiles(decisions),
        ),
        compared(
            metric="decision to the new replica's first answer, over a bare start under the same load",
            unit="s",
            values=starts,
            floor=bare,
            at_most=1.2,
            n=1,
        ),
    ]


def _sums(first: list[float], second: list[float]) -> list[float]:
    return [one + other for one, other in zip(first, second, strict=True)]


def _rest(endpoint: Served) -> TargetStatus:
    """One replica, no load, and an autoscaler that holds still."""
    endpoint.pause_autoscaling(True)
    endpoint.scale(1)
    return endpoint.until_ready(1)


def _bare(endpoint: Served, load: Load) -> float:
    """Seconds from the start of the process to its first answer, while the load keeps the other one busy."""
    busy = _rest(endpoint).replicas[0].name
    config = endpoint.product.home / "node" / "replicas" / endpoint.key / busy / "config.json"
    with driving(load) as going:
        time.sleep(SETTLE_S)
        took = _start_bare(json.loads(config.read_text()), load)
        going.stop()
    return took


def _start_bare(config: dict[str, object], load: Load) -> float:
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        home = Home(root=Path(folder))
        home.prepare()
        port = choose(home, ["replica"])["replica"]
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(config | {"port": port, "replica": "bare"}))
        environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        environment |= {"HOME": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.stacks.fastapi.replica", str(file)],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            path = load.urls[0].partition("/v2/")[2]
            _first_answer(f"http://127.0.0.1:{port}/v2/{path}", load)
            return time.monotonic() - began
        finally:
            process.kill()
            process.wait()


def _first_answer(url: str, load: Load) -> None:
    deadline = time.monotonic() + LONGEST_S
    while time.monotonic() < deadline:
        asked = urllib.request.Request(url, data=load.body, headers=load.headers)
        with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=5) as answer:
            answer.read()
            return
        time.sleep(LOOK_S)
    raise TimeoutError("the bare replica did not answer")


def _step(endpoint: Served, load: Load, *, phase: float) -> tuple[float, float, Answers]:
    """Seconds from the step to the decision, and from there to the new replica's first answer; what was sent.

    `phase` in [0, 1) puts the step anywhere in the autoscaler's beat.
    """
    known = {one.name for one in endpoint.seen().replicas}
    endpoint.pause_autoscaling(False)
    time.sleep(INTERVAL_S * (1 + phase))
    last = _newest_decision(endpoint)
    with driving(load) as going:
        decided = _decided(endpoint, after=last)
        _until_it_serves(endpoint, known)
        serving = time.monotonic()
        answers = going.stop()
    return decided - float(answers.due.min()), serving - decided, answers


def _newest_decision(endpoint: Served) -> int:
    row = endpoint.database.execute("SELECT coalesce(max(id), 0) FROM deployments_decision").fetchone()
    assert row is not None
    return int(row[0])


def _decided(endpoint: Served, *, after: int) -> float:
    deadline = time.monotonic() + LONGEST_S
    while time.monotonic() < deadline:
        found = endpoint.database.execute(
            "SELECT 1 FROM deployments_decision WHERE id > %s AND desired_replicas > current_replicas",
            [after],
        ).fetchone()
        if found is not None:
            return time.monotonic()
        time.sleep(LOOK_S)
    raise TimeoutError("the autoscaler did not decide")


def _until_it_serves(endpoint: Served, known: set[str]) -> None:
    """The first answer that the new replica counts."""
    deadline = time.monotonic() + LONGEST_S
    while time.monotonic() < deadline:
        for one in endpoint.seen().replicas:
            if one.name not in known and _has_served(one.url):
                return
        time.sleep(LOOK_S)
    raise TimeoutError("the new replica did not serve")


def _has_served(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=2) as answer:
            page = answer.read().decode()
    except OSError:
        return False
    counted = [
        line for line in page.splitlines() if line.startswith("slipway_requests_total{") and '"200"' in line
    ]
    return any(float(line.rpartition(" ")[2]) > 0 for line in counted)
