"""Two workers that a test may do anything to; the next test finds both at work again."""

from dataclasses import dataclass, field

from controlplane.embedded import procfs
from optimizer.models import Job
from tests.faults.programs import Program, Tree, alive, tree
from tests.faults.stage import Stage
from tests.faults.waiting import until
from tests.faults.workshop import look

NAMES = ("one", "two")


@dataclass(kw_only=True)
class Crew:
    stands: Stage
    environment: dict[str, str] = field(default_factory=dict)
    workers: dict[str, Program] = field(default_factory=dict)

    def complete(self) -> None:
        """Starts who is missing, both at once."""
        missing = [name for name in NAMES if name not in self.workers or not self.workers[name].running]
        for name in missing:
            self.workers[name] = self.stands.begin_worker(name, **self.environment)
        for name in missing:
            self.stands.until_ready(self.workers[name])

    def owner(self, job: Job) -> Program:
        """Who has the job now."""
        return self.workers[look(job).owner.partition("@")[0]]

    def other(self, worker: Program) -> Program:
        return next(one for one in self.workers.values() if one is not worker)


def pool_child(worker: Program) -> int:
    """The process of a worker that runs its job: the one that has children of its own."""
    parents = {seen.parent for seen in procfs.everyone()}
    return next(pid for pid in worker.children() if pid in parents)


def builders_of(worker: Program) -> Tree:
    """What a worker started to build with; empty while it builds nothing."""
    above = {worker.pid, *worker.children()}
    return {pid: started for pid, started in tree(worker.pid).items() if pid not in above}


def assert_gone(those: Tree, *, within_s: float) -> None:
    until(lambda: not alive(those), within_s=within_s, what=f"the end of {alive(those)}")
