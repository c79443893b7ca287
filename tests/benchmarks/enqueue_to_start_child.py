"""Commits jobs on an idle installation and notes when their first line is committed by the worker.

Runs as a child of the installation and prints `{"ours": [[ms, ...] per round], "floor": [...], "peer": [...]}`.
Each job's input has no bytes, so that it ends right after it started and the worker is idle again. The clock is
this process's own from commit to notification; no two clocks are compared.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import django

SEED = 20261124
WITHIN_S = 30.0
WARM_UP = 3
PAUSE_S = (0.05, 0.35)
"""Between a job's end and the next commit: not in step with anything that polls."""


def main(rounds: int, jobs: int) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    django.setup()
    pauses = random.Random(SEED)
    with _bench() as measure:
        arms = {"ours": measure.ours, "floor": measure.floor, "peer": measure.peer}
        found: dict[str, list[list[float]]] = {name: [] for name in arms}
        for measured in arms.values():
            for _ in range(WARM_UP):
                measured()
        for _ in range(rounds):
            for name, measured in arms.items():
                found[name].append([_after(pauses.uniform(*PAUSE_S), measured) for _ in range(jobs)])
    json.dump(found, sys.stdout)


def _after(pause_s: float, measured: Callable[[], float]) -> float:
    time.sleep(pause_s)
    return measured()


@contextmanager
def _bench() -> Iterator["Bench"]:
    import psycopg
    from django.conf import settings
    from redis import Redis

    from controlplane.core.bus import TICKS, conninfo
    from tests.factories import member, model, team

    url = settings.ENVIRONMENT.redis_url
    with (
        psycopg.connect(conninfo(), autocommit=True) as listener,
        Redis.from_url(url, socket_timeout=None) as broker,
    ):
        listener.execute(f"LISTEN {TICKS}")
        actor = member(team("bench"))
        yield Bench(actor=actor, model=model(actor.team, "ranker"), listener=listener, broker=broker)


class Bench:
    def __init__(self, *, actor: Any, model: Any, listener: Any, broker: Any) -> None:
        self.actor, self.model, self.listener, self.broker = actor, model, listener, broker

    def ours(self) -> float:
        """Milliseconds from the commit of the row to the notification that came with the worker's first line."""
        from optimizer.domain.recipe import Recipe, Step
        from optimizer.models import JobEvent
        from optimizer.services import optimize
        from tests.factories import version

        parent = version(self.model).variants.get()
        job, _ = optimize(self.actor, parent, recipe=Recipe(steps=(Step(technique="onnx-graph"),)))
        committed = time.monotonic()
        ticks = self._ticks(f"job:{job.pk}")
        next(ticks)  # that of the commit itself
        next(ticks)
        started = time.monotonic()
        first = JobEvent.objects.filter(job=job, attempt=1).order_by("pk").first()
        assert first is not None, "the worker wrote nothing"
        assert first.message.startswith("Attempt 1 started"), first.message
        self._until_over(job, ticks)
        return (started - committed) * 1000

    def floor(self) -> float:
        """Commit, LPUSH, BRPOP in a process that waits, and its own commit; see `enqueue_to_start_floor`."""
        return self._sent(lambda: self.broker.lpush("bench:do", b"1"), done="bench:done")

    def peer(self) -> float:
        """The same through Celery; see `enqueue_to_start_celery`."""
        from tests.benchmarks.enqueue_to_start_celery import DONE, start

        return self._sent(start.delay, done=DONE)

    def _sent(self, send: Callable[[], object], *, done: str) -> float:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO bench_floor (body) VALUES (repeat('x', 500))")
        committed = time.monotonic()
        send()
        answer = self.broker.brpop(done, timeout=WITHIN_S)
        return (float(answer[1]) - committed) * 1000

    def _ticks(self, topic: str) -> Iterator[None]:
        """One for each notification about the topic, also those that came while nobody looked."""
        while True:
            heard = False
            for tick in self.listener.notifies(timeout=WITHIN_S, stop_after=1):
                heard = True
                if topic in json.loads(tick.payload)["topics"]:
                    yield
            if not heard:
                raise TimeoutError(f"nothing was heard of {topic} for {WITHIN_S:.0f} s")

    def _until_over(self, job: Any, ticks: Iterator[None]) -> None:
        from optimizer.domain.jobs import TERMINAL

        while job.state not in TERMINAL:
            next(ticks)
            job.refresh_from_db(fields=["state"])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
