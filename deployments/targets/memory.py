"""A complete target in memory, with a clock that is moved by hand: the twin that rollouts are tested on.

It keeps the port's rules (fence, plan, drain, restarts with reasons); only the processes are imagined. Time
stands still until `advance`. Refused: a mock that records calls; it would accept what a real target refuses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

from controlplane.core.errors import NotFound
from deployments.domain.plan import Finding, Plan
from deployments.domain.workload import (
    DesiredDeployment,
    ReplicaState,
    ReplicaStatus,
    TargetEvent,
    TargetStatus,
    Workload,
)
from deployments.targets.port import Unreachable, Way
from deployments.targets.wishes import Wishes

STEP = timedelta(milliseconds=100)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How processes of a revision end: so long after they started, with these words and last lines."""

    reason: str
    log: tuple[str, ...]
    after_s: float = 0.1


@dataclass(kw_only=True)
class _Replica:
    status: ReplicaStatus
    workload: Workload
    gone_at: datetime | None = None


class MemoryTarget:
    """See `deployments.targets.port.Target`; the other methods are the hands of the test."""

    rolls = False
    way: Way | None = None

    def __init__(self, *, start_s: float = 1, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.start_s = start_s
        self.now = now
        self.reachable = True
        self._wishes = Wishes({}, {})
        self._replicas: dict[str, list[_Replica]] = {}
        self._failures: dict[tuple[str, int], Failure] = {}
        self._events: list[TargetEvent] = []
        self._pid = 999

    # The hands of the test

    def advance(self, seconds: float) -> None:
        """Lets time pass, in small steps, so that what happens one after the other happens in that order."""
        end = self.now + timedelta(seconds=seconds)
        while self.now < end:
            self.now = min(end, self.now + STEP)
            for key in list(self._replicas):
                self._pass(key)

    def fail(
        self, key: str, *, revision: int, reason: str = "exited with code 1", log: tuple[str, ...] = ()
    ) -> None:
        """From now on processes of this revision end before they are ready; `mend` takes it back."""
        self._failures[key, revision] = Failure(reason=reason, log=log)

    def hang(self, key: str, *, revision: int, log: tuple[str, ...] = ()) -> None:
        """From now on processes of this revision run and are never ready; `mend` takes it back."""
        self._failures[key, revision] = Failure(reason="", log=log, after_s=inf)

    def mend(self, key: str, *, revision: int) -> None:
        self._failures.pop((key, revision), None)

    def kill(self, key: str, *, replica: str) -> None:
        """The replica's process dies now and is replaced."""
        one = self._find(key, replica)
        self._died(key, one, Failure(reason="killed by signal 9", log=()))

    # The port

    def preflight(self, desired: DesiredDeployment, *, live: DesiredDeployment | None) -> tuple[Finding, ...]:
        if self.reachable:
            return ()
        return (
            Finding.error(
                "node_unreachable",
                "The target does not answer.",
                "It was made unreachable.",
                "Make it reachable again.",
            ),
        )

    def plan(self, desired: DesiredDeployment) -> Plan:
        self._reach()
        return self._wishes.plan(desired)

    def apply(
        self,
        desired: DesiredDeployment,
        *,
        expected_live_digest: str | None = None,
        take_over: Callable[[str], None] | None = None,
    ) -> None:
        self._reach()
        if self._wishes.accept(desired, expected_live_digest=expected_live_digest):
            self._wishes.commit(desired)
            self._event("applied", f"generation {desired.generation}", desired.key)
            self._reconcile(desired.key)

    def observe(self, key: str) -> TargetStatus:
        self._reach()
        wish, replicas = self._wishes.get(key), self._replicas.get(key)
        if wish is None and not replicas:
            raise NotFound("no_such_deployment", f"There is no deployment {key} on this target.")
        return TargetStatus(
            key=key,
            generation=self._wishes.generation(key),
            address=f"http://memory.invalid{wish.path}" if wish is not None else None,
            replicas=tuple(one.status for one in replicas or ()),
            observed_at=self.now,
        )

    def observe_all(self) -> tuple[TargetStatus, ...]:
        self._reach()
        keys = self._wishes.keys() | {key for key, replicas in self._replicas.items() if replicas}
        return tuple(self.observe(key) for key in sorted(keys))

    def desired(self, key: str) -> DesiredDeployment | None:
        self._reach()
        return self._wishes.get(key)

    def scale(self, key: str, *, revision: int, replicas: int, generation: int) -> None:
        self._reach()
        self.apply(self._wishes.scaled(key, revision=revision, replicas=replicas, generation=generation))

    def logs(self, key: str, *, replica: str, tail: int = 200) -> tuple[str, ...]:
        self._reach()
        one = self._find(key, replica)
        failure = self._failures.get((key, one.workload.revision))
        return (failure.log if failure is not None else one.status.log_tail)[-tail:]

    def events(self, key: str | None = None, *, after: int = 0, wait_s: float = 0) -> tuple[TargetEvent, ...]:
        self._reach()
        return tuple(event for event in self._events if event.id > after and key in (None, event.key))

    def follow(self, changed: Callable[[str], None]) -> None:
        """It is asked each time: that costs little here."""

    def delete(self, key: str) -> None:
        self._reach()
        if self._wishes.remove(key) is not None:
            self._event("deleted", "taken away", key)
            self._reconcile(key)

    # How it does it

    def _reach(self) -> None:
        if not self.reachable:
            raise Unreachable(
                "node_unreachable",
                "The target does not answer.",
                "What it runs keeps running; try again.",
                retry_after_s=2,
            )

    def _reconcile(self, key: str) -> None:
        wish = self._wishes.get(key)
        replicas = self._replicas.setdefault(key, [])
        wanted = {one.revision: one for one in wish.workloads} if wish is not None else {}
        for revision in wanted.keys() | {one.workload.revision for one in replicas}:
            workload = wanted.get(revision)
            number = workload.replicas if workload is not None else 0
            running = [one for one in replicas if one.workload.revision == revision and one.gone_at is None]
            running.sort(key=lambda one: (one.status.state is not ReplicaState.READY, one.status.started_at))
            for one in running[number:]:
                self._set(key, one, state=ReplicaState.DRAINING)
                one.gone_at = self.now + min(STEP, timedelta(seconds=wish.drain_s if wish is not None else 0))
            if workload is not None:
                replicas.extend(self._new(key, workload) for _ in range(number - len(running)))

    def _next_pid(self) -> int:
        self._pid += 1
        return self._pid

    def _new(self, key: str, workload: Workload) -> _Replica:
        pid = self._next_pid()
        status = ReplicaStatus(
            name=f"r{workload.revision}-{pid:x}",
            revision=workload.revision,
            state=ReplicaState.STARTING,
            url=f"http://memory.invalid:{pid}",
            pid=pid,
            restarts=0,
            started_at=self.now,
            ready_at=None,
            reason="",
            log_tail=(),
        )
        self._event("started", f"process {pid}", key, status.name)
        return _Replica(status=status, workload=workload)

    def _pass(self, key: str) -> None:
        for one in list(self._replicas[key]):
            age_s = (self.now - one.status.started_at).total_seconds()
            failure = self._failures.get((key, one.workload.revision))
            if one.gone_at is not None:
                if self.now >= one.gone_at:
                    self._replicas[key].remove(one)
                    self._event("removed", "gone", key, one.status.name)
            elif one.status.state is ReplicaState.FAILED:
                self._set(
                    key,
                    one,
                    state=ReplicaState.STARTING,
                    started_at=self.now,
                    pid=self._next_pid(),
                    ready_at=None,
                )
            elif one.status.state is ReplicaState.STARTING:
                if failure is not None and age_s >= failure.after_s:
                    self._died(key, one, failure)
                elif failure is None and age_s >= self.start_s:
                    self._set(key, one, state=ReplicaState.READY, ready_at=self.now)

    def _died(self, key: str, one: _Replica, failure: Failure) -> None:
        self._set(
            key,
            one,
            state=ReplicaState.FAILED,
            pid=None,
            ready_at=None,
            restarts=one.status.restarts + 1,
            reason=failure.reason,
            log_tail=failure.log[-50:],
        )

    def _set(self, key: str, one: _Replica, **changes: object) -> None:
        one.status = replace(one.status, **changes)  # type: ignore[arg-type]
        kind = {ReplicaState.FAILED: "died", ReplicaState.STARTING: "started"}.get(one.status.state)
        self._event(kind or str(one.status.state), one.status.reason, key, one.status.name)

    def _find(self, key: str, replica: str) -> _Replica:
        for one in self._replicas.get(key, ()):
            if one.status.name == replica:
                return one
        raise NotFound("no_such_replica", f"Deployment {key} has no replica {replica}.")

    def _event(self, kind: str, message: str, key: str, replica: str | None = None) -> None:
        self._events.append(
            TargetEvent(
                id=len(self._events) + 1, at=self.now, key=key, replica=replica, kind=kind, message=message
            )
        )


_SHARED = MemoryTarget()


def open_target(settings: Mapping[str, Any], secret: bytes) -> MemoryTarget:
    """The one of this process: what one caller applies, the next one observes."""
    return _SHARED
