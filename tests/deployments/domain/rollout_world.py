"""A target in a few lines: it does what it is asked for, and what becomes ready or fails is decided by the test."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from deployments.domain.rolling import Count
from deployments.domain.spec import RolloutPolicy, Strategy
from deployments.domain.strategy import Move, Phase, Situation, StepState, next_move

STABLE, NEW = 1, 2


@dataclass(kw_only=True)
class World:
    policy: RolloutPolicy
    wanted: int
    counts: dict[int, Count]
    traffic: dict[int, int] | None = None
    weighted: bool = False
    stable: int | None = STABLE
    state: StepState = field(default_factory=StepState)
    back: bool = False
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    @property
    def situation(self) -> Situation:
        return Situation(
            policy=self.policy,
            to=NEW,
            stable=self.stable,
            wanted=self.wanted,
            counts=self.counts,
            now=self.now,
            traffic=self.traffic,
            weighted=self.weighted,
            state=self.state,
            back=self.back,
        )

    def ready(self, revision: int) -> int:
        return self.counts[revision].ready if revision in self.counts else 0

    @property
    def asked(self) -> dict[int, int]:
        return {revision: one.asked for revision, one in self.counts.items() if one.asked}

    @property
    def serving(self) -> int:
        """Ready replicas that take traffic."""
        return sum(
            one.ready
            for revision, one in self.counts.items()
            if not self.traffic or self.traffic.get(revision)
        )

    def look(self) -> Move:
        """One reconcile step: look, carry out, keep the state. Of what goes, the replicas that are not ready go
        first; what comes is not ready yet."""
        move = next_move(self.situation)
        self.carry_out(move)
        return move

    def carry_out(self, move: Move) -> None:
        self.state = move.state
        self.traffic = None if move.weights is None else dict(move.weights)
        self.counts = {
            revision: Count(asked=asked, ready=min(self.ready(revision), asked), present=asked)
            for revision, asked in move.counts.items()
            if asked
        }

    def change(self, ready: Mapping[int, int]) -> None:
        self.counts = {
            revision: replace(one, ready=min(one.asked, ready.get(revision, one.ready)))
            for revision, one in self.counts.items()
        }

    def all_ready(self) -> None:
        self.change({revision: one.asked for revision, one in self.counts.items()})

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def at_rest(self) -> Move:
        """Looks until nothing changes any more; no replica changes meanwhile."""
        for _ in range(50):
            before = self.situation
            move = self.look()
            if self.situation == before:
                return move
        raise AssertionError("it never comes to rest")

    def run(self, *, until: Phase = Phase.FINISHED, most: int = 2000) -> Move:
        """Everything becomes ready, every gate is passed, every hold is over: how it goes when it goes well."""
        for _ in range(most):
            move = self.look()
            if move.phase is until:
                return move
            if move.phase is Phase.JUDGING:
                self.state = self.state.next_step()
            self.all_ready()
            self.later(self.policy.hold_s)
        raise AssertionError(f"no {until} after {most} looks: {self.situation}")


def world(strategy: Strategy, *, wanted: int = 4, weighted: bool = False, **policy: object) -> World:
    """A stable revision serves in full, and the rollout begins."""
    return World(
        policy=RolloutPolicy.from_json({"strategy": strategy, **policy}),
        wanted=wanted,
        weighted=weighted,
        counts={STABLE: Count(asked=wanted, ready=wanted, present=wanted)},
    )
