"""A random schedule of kills, from a seed that is printed: whatever the order, what must hold holds.

SLIPWAY_CHAOS_SEED=7 pytest tests/faults/test_chaos.py      the same schedule again
SLIPWAY_CHAOS_KILLS=200 ...                                 a longer one
"""

import os
import random
import signal
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial

import pytest
import redis

from optimizer.domain.jobs import TERMINAL, JobState
from optimizer.models import Job
from tests.faults import workshop as jobs
from tests.faults.crew import Crew, assert_gone, builders_of
from tests.faults.programs import Program, Tree, alive
from tests.faults.stage import LEASE_S, Stage
from tests.faults.techniques import SLOW
from tests.faults.waiting import until
from tests.faults.workshop import Workshop

KILLS = int(os.environ.get("SLIPWAY_CHAOS_KILLS", "5"))
JOBS = max(12, 2 * KILLS)
WITHIN_S = 60 + 12 * KILLS


@dataclass(kw_only=True)
class Witness:
    """Looks at the rows whenever it is asked, and fails when one went where no row may go."""

    jobs: list[Job]
    fences: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    ended: dict[int, str] = field(default_factory=dict)

    def look(self) -> bool:
        """Whether every job is over."""
        for pk, state, fence in Job.objects.filter(pk__in=[job.pk for job in self.jobs]).values_list(
            "pk", "state", "fence"
        ):
            assert fence >= self.fences[pk], f"the fence of job {pk} went from {self.fences[pk]} to {fence}"
            self.fences[pk] = fence
            assert self.ended.get(pk, state) == state, f"job {pk} went from {self.ended[pk]} to {state}"
            if state in TERMINAL:
                self.ended[pk] = state
        return len(self.ended) == len(self.jobs)

    def reached(self, fences: int) -> bool:
        """Whether so much happened, or everything is over."""
        return self.look() or sum(self.fences.values()) >= fences


@dataclass(kw_only=True)
class Chaos:
    crew: Crew
    stands: Stage
    random: random.Random
    buried: Tree = field(default_factory=dict)

    def strike(self) -> str:
        """One fault, at whoever builds now if anybody does. Returns what was done."""
        names = sorted(name for name, worker in self.crew.workers.items() if worker.running)
        busy = [name for name in names if builders_of(self.crew.workers[name])]
        worker = self.crew.workers[self.random.choice(busy or names)]
        fault = self.random.choice(
            [self.kill_group, self.kill_parent, self.kill_child, self.freeze, self.forget, self.stop]
        )
        fault(worker)
        return f"{fault.__name__} {worker.name}"

    def kill_group(self, worker: Program) -> None:
        self.buried |= worker.kill_group()

    def kill_parent(self, worker: Program) -> None:
        self.buried |= worker.kill()

    def kill_child(self, worker: Program) -> None:
        self.buried |= builders_of(worker)
        for pid in worker.children():
            os.kill(pid, signal.SIGKILL)

    def freeze(self, worker: Program) -> None:
        """Until somebody else has what it had, or it had nothing."""
        self.buried |= builders_of(worker)
        worker.freeze()
        had = list(Job.objects.filter(owner__startswith=f"{worker.name}@", state=JobState.RUNNING))
        try:
            until(
                lambda: not any(still_held(job) for job in had),
                within_s=LEASE_S + 5,
                what="the lease of a frozen worker running out",
            )
        finally:
            worker.thaw()

    def forget(self, worker: Program) -> None:
        """The broker loses everything."""
        with redis.Redis.from_url(self.stands.values["REDIS_URL"]) as broker:
            broker.flushall()

    def stop(self, worker: Program) -> None:
        self.buried |= builders_of(worker)
        worker.terminate(within_s=self.stands.rows["worker-optimize"].grace_s)


def still_held(job: Job) -> bool:
    now = jobs.look(job)
    return now.state == JobState.RUNNING and now.fence == job.fence


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("SLIPWAY_CHAOS_SEED") or random.SystemRandom().randrange(10_000))


def test_whatever_is_killed_every_job_takes_effect_once(stands: Stage, workshop: Workshop, seed: int) -> None:
    chosen = random.Random(seed)
    print(f"SLIPWAY_CHAOS_SEED={seed}")
    stands.start("dispatcher")
    crew = Crew(stands=stands)
    crew.complete()
    chaos = Chaos(crew=crew, stands=stands, random=chosen)
    witness = Witness(jobs=[workshop.queue(SLOW, lines=10) for _ in range(JOBS)])
    Job.objects.filter(pk__in=[job.pk for job in witness.jobs]).update(max_attempts=KILLS + 3)
    for number in range(KILLS):
        goal = sum(witness.fences.values()) + chosen.randint(1, 2)
        until(
            partial(witness.reached, goal),
            within_s=WITHIN_S,
            what=f"the claims before kill {number + 1}",
        )
        print(f"kill {number + 1}: {chaos.strike()}")
        crew.complete()
    until(witness.look, within_s=WITHIN_S, what="the end of every job")
    for job in witness.jobs:
        jobs.assert_one_effect(job)
        starts = jobs.starts(job)
        assert len(starts) == jobs.look(job).attempt
    assert_gone(chaos.buried, within_s=3)
    assert alive(chaos.buried) == []
    jobs.assert_tidy(stands.scratch, witness.jobs)
    assert witness.look()
