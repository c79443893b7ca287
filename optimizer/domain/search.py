"""Which recipe to try next, which need not be tried, when to stop, and what is left to choose from.

A plan is an ordered list of recipes, single steps before what is made of them. Each is measured by a job of its own,
at several batch sizes at once. Refused: guesses about a recipe from its parts' speed; parts only rule out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import Self

from optimizer.domain.recipe import Recipe, Step


class SearchState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


EDGES: Mapping[str, frozenset[str]] = {
    SearchState.RUNNING: frozenset({SearchState.SUCCEEDED, SearchState.FAILED, SearchState.CANCELLED}),
    SearchState.SUCCEEDED: frozenset(),
    SearchState.FAILED: frozenset(),
    SearchState.CANCELLED: frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class Range:
    """A measured value with its interval."""

    value: float
    low: float
    high: float


SAME = Range(value=1.0, low=1.0, high=1.0)
NOTHING = Range(value=0.0, low=0.0, high=0.0)
SIZE_COUNTS_FROM = 0.01


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one recipe showed at one batch size. `loss` is a share of the accuracy, or of the answers."""

    batch_size: int
    speedup: Range
    loss: Range
    size_bytes: int


def dominates(a: Point, b: Point) -> bool:
    """At least as good in everything and better in something, by the measured values."""
    return _as_good(a, b) and (
        a.speedup.value > b.speedup.value or a.loss.value < b.loss.value or a.size_bytes < b.size_bytes
    )


def surely_dominates(a: Point, b: Point) -> bool:
    """As good in everything, and better in something by more than both intervals, or so much smaller that it counts."""
    return _as_good(a, b) and (
        a.speedup.low > b.speedup.high
        or a.loss.high < b.loss.low
        or a.size_bytes * (1 + SIZE_COUNTS_FROM) < b.size_bytes
    )


def _as_good(a: Point, b: Point) -> bool:
    return (
        a.batch_size == b.batch_size
        and a.speedup.value >= b.speedup.value
        and a.loss.value <= b.loss.value
        and a.size_bytes <= b.size_bytes
    )


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other of the same batch size dominates, in their order."""
    return [point for point in points if not any(dominates(other, point) for other in points)]


def plan(
    *,
    graphs: Sequence[Step],
    precisions: Sequence[Step],
    first: tuple[Step, ...] = (),
    last: tuple[Step, ...] = (),
) -> list[Recipe]:
    """Single steps, then each precision on each graph. `first` and `last` are what all of them begin or end with; that
    is tried alone."""
    singles = [(step,) for step in (*precisions, *graphs)]
    pairs = [(graph, step) for step in precisions for graph in graphs]
    inner = ((), *singles, *pairs) if first or last else (*singles, *pairs)
    return [Recipe(steps=(*first, *steps, *last)) for steps in inner]


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Digests of the recipe that all others begin with, and of that which all end with; None where they do not. No
    recipe can do without either, so neither rules one out by being worse. What it begins with does by coming to
    nothing."""

    first: str | None = None
    last: str | None = None

    @classmethod
    def of(cls, recipes: Sequence[Recipe]) -> Self:
        if len(recipes) < 2:
            return cls()
        shortest, count = recipes[0], len(recipes[0].steps)
        first = all(one.steps[:count] == shortest.steps for one in recipes)
        last = all(one.steps[-count:] == shortest.steps for one in recipes)
        return cls(first=shortest.digest if first else None, last=shortest.digest if last else None)


def parts_of(recipe: Recipe) -> list[str]:
    """Digests of the recipes that some of its steps make, in their order; none for one of a single step."""
    counts = range(1, len(recipe.steps))
    return [Recipe(steps=part).digest for count in counts for part in combinations(recipe.steps, count)]


def worse(points: Sequence[Point], others: Iterable[Point]) -> bool:
    """Whether it came to nothing, or others surely dominate it at every batch size."""
    known = list(others)
    return all(any(surely_dominates(other, point) for other in known) for point in points)


def pruned(
    recipe: Recipe,
    measured: Mapping[str, Sequence[Point]],
    *,
    parent: Sequence[Point],
    ends: Ends = Ends(),
) -> str | None:
    """The digest of the part for which this recipe need not be tried: one that came to nothing, or that the parent or
    another recipe surely dominates everywhere. `measured`: points by a recipe's digest, none where it failed."""
    for part in parts_of(recipe):
        others = [point for key, points in measured.items() if key != part for point in points]
        against = [] if part == ends.first else [*parent, *others]
        if part != ends.last and part in measured and worse(measured[part], against):
            return part
    return None


@dataclass(frozen=True, kw_only=True)
class Try:
    """The recipe at this place of the plan."""

    index: int


@dataclass(frozen=True, kw_only=True)
class Stop:
    """`why` is said to a person."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Budget:
    max_jobs: int
    max_minutes: float


def decide(
    recipes: Sequence[Recipe],
    measured: Mapping[str, Sequence[Point]],
    *,
    parent: Sequence[Point],
    budget: Budget,
    elapsed_minutes: float,
) -> Try | Stop:
    """What to do once no job is active. The same answer for the same evidence, so it may be asked again."""
    waiting = [index for index, recipe in enumerate(recipes) if recipe.digest not in measured]
    ends = Ends.of(recipes)
    open_ = [index for index in waiting if pruned(recipes[index], measured, parent=parent, ends=ends) is None]
    if not open_:
        return Stop(why=f"Everything worth trying was measured: {_counted(len(measured), len(recipes))}.")
    if len(measured) >= budget.max_jobs:
        return Stop(why=f"The budget of {_jobs(budget.max_jobs)} is used up; {len(open_)} recipes were left.")
    if elapsed_minutes >= budget.max_minutes:
        return Stop(
            why=f"The budget of {budget.max_minutes:g} minutes is used up; {len(open_)} recipes were left."
        )
    return Try(index=open_[0])


def _jobs(number: int) -> str:
    return f"{number} job{'' if number == 1 else 's'}"


def _counted(tried: int, of: int) -> str:
    left = of - tried
    return f"{tried} of {of} recipes" + (f", {left} ruled out by what their parts showed" if left else "")
