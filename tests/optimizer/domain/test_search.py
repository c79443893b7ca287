"""The search for recipes: what is tried, what is ruled out, when it ends, and what is left to choose from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.domain.recipe import Step
from optimizer.domain.search import (
    NOTHING,
    SAME,
    Budget,
    Ends,
    Point,
    Range,
    Stop,
    Try,
    decide,
    dominates,
    front,
    parts_of,
    plan,
    pruned,
    surely_dominates,
    worse,
)

PARENT = (Point(batch_size=1, speedup=SAME, loss=NOTHING, size_bytes=100),)
RECIPES = plan(
    graphs=[Step(technique="onnx-graph"), Step(technique="onnx-graph", params={"tool": "onnxslim"})],
    precisions=[Step(technique="fp16"), Step(technique="int8-static")],
)
LED = plan(
    graphs=[Step(technique="onnx-graph")],
    precisions=[Step(technique="fp16"), Step(technique="int8-static")],
    first=(Step(technique="onnx-export"),),
)
AMPLE = Budget(max_jobs=100, max_minutes=100)


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    value, below, above = (draw(st.integers(0, 4)) for _ in range(3))
    return Range(value=value, low=value - below, high=value + above)


points = st.builds(
    Point, batch_size=st.sampled_from([1, 8]), speedup=ranges(), loss=ranges(), size_bytes=st.integers(1, 4)
)


def point(speed: float, *, loss: float = 0.0, size: int = 100, unsure: float = 0.01) -> Point:
    return Point(
        batch_size=1,
        speedup=Range(value=speed, low=speed - unsure, high=speed + unsure),
        loss=Range(value=loss, low=loss, high=loss),
        size_bytes=size,
    )


@given(points, points, points)
def test_dominance_is_an_order(a: Point, b: Point, c: Point) -> None:
    assert not dominates(a, a)
    assert not (dominates(a, b) and dominates(b, a))
    assert not (dominates(a, b) and dominates(b, c)) or dominates(a, c)
    assert not surely_dominates(a, b) or dominates(a, b), "what is sure holds by the values as well"


@given(st.lists(points, max_size=12))
def test_the_front_is_what_nothing_dominates_and_dominates_all_else(found: list[Point]) -> None:
    kept = front(found)
    assert not any(dominates(a, b) for a in kept for b in kept)
    assert all(any(dominates(a, b) for a in kept) for b in found if b not in kept)
    assert front(kept) == kept


def test_single_steps_come_before_what_is_made_of_them() -> None:
    digests = [recipe.digest for recipe in RECIPES]
    assert len(set(digests)) == len(digests) == 4 + 4
    for index, recipe in enumerate(RECIPES):
        assert all(digests.index(part) < index for part in parts_of(recipe))


@given(st.lists(st.lists(points, max_size=2), min_size=8, max_size=8), st.integers(0, 9), st.integers(0, 9))
def test_a_search_ends_within_its_budget_and_leaves_out_only_what_it_ruled_out(
    outcomes: list[list[Point]], max_jobs: int, minutes: int
) -> None:
    measured: dict[str, list[Point]] = {}
    budget = Budget(max_jobs=max_jobs, max_minutes=minutes)
    while isinstance(
        found := decide(RECIPES, measured, parent=PARENT, budget=budget, elapsed_minutes=len(measured)), Try
    ):
        recipe = RECIPES[found.index]
        assert recipe.digest not in measured
        assert pruned(recipe, measured, parent=PARENT) is None
        measured[recipe.digest] = outcomes[found.index]
    assert len(measured) <= min(max_jobs, minutes)
    if found.why.startswith("Everything"):
        left = [recipe for recipe in RECIPES if recipe.digest not in measured]
        assert all(pruned(recipe, measured, parent=PARENT) for recipe in left)


@pytest.mark.parametrize(
    ("shown", "is_worse"),
    [
        ([], True),  # it failed
        ([point(0.9)], True),
        ([point(1.0)], False),  # no difference is no reason to leave it out
        ([point(1.005, unsure=0.01)], False),
        ([point(0.995, unsure=0.01)], False),  # within the noise
        ([point(0.995, unsure=0.01, size=101)], False),  # a larger file, but hardly
        ([point(0.995, unsure=0.01, size=110)], True),
        ([point(0.9, size=50)], False),  # slower, but smaller
        ([point(2.0, loss=0.1)], False),
    ],
)
def test_a_part_that_was_measured_worse_rules_out_what_is_made_of_it(
    shown: list[Point], is_worse: bool
) -> None:
    fp16 = RECIPES[0]
    assert worse(shown, PARENT) is is_worse
    ruled_out = [pruned(recipe, {fp16.digest: shown}, parent=PARENT) for recipe in RECIPES]
    assert [key == fp16.digest for key in ruled_out] == [
        is_worse and fp16.digest in parts_of(recipe) for recipe in RECIPES
    ]


def test_what_all_recipes_begin_with_rules_them_out_only_where_it_came_to_nothing() -> None:
    assert [recipe.name for recipe in LED] == [
        "onnx-export", "onnx-export + fp16", "onnx-export + int8-static", "onnx-export + onnx-graph",
        "onnx-export + onnx-graph + fp16", "onnx-export + onnx-graph + int8-static",
    ]  # fmt: skip
    assert Ends.of(LED) == Ends(first=LED[0].digest)
    assert Ends.of(RECIPES) == Ends.of(LED[:1]) == Ends()
    slower, failed = {LED[0].digest: [point(0.5)]}, {LED[0].digest: []}
    for measured, index in ((slower, 1), (slower | {LED[1].digest: [point(9.0, size=1)]}, 2)):
        found = decide(LED, measured, parent=PARENT, budget=AMPLE, elapsed_minutes=0)
        assert found == Try(index=index)
    stopped = decide(LED, failed, parent=PARENT, budget=AMPLE, elapsed_minutes=0)
    assert isinstance(stopped, Stop)
    assert (
        stopped.why
        == "Everything worth trying was measured: 1 of 6 recipes, 5 ruled out by what their parts showed."
    )


ENDED = plan(
    graphs=[Step(technique="int8-static")],
    precisions=[Step(technique="fp16")],
    last=(Step(technique="tensorrt"),),
)


@pytest.mark.parametrize("alone", [[], [point(0.5)]])
def test_what_all_recipes_end_with_rules_none_out_whatever_it_came_to_alone(alone: list[Point]) -> None:
    assert [recipe.name for recipe in ENDED] == [
        "tensorrt", "fp16 + tensorrt", "int8-static + tensorrt", "int8-static + fp16 + tensorrt",
    ]  # fmt: skip
    assert Ends.of(ENDED) == Ends(last=ENDED[0].digest)
    engine, half, integers, _ = (recipe.digest for recipe in ENDED)
    measured = {engine: alone, half: [point(4.0)], integers: [point(2.0)]}
    ruled_out = [pruned(recipe, measured, parent=PARENT, ends=Ends.of(ENDED)) for recipe in ENDED]
    assert ruled_out == [None, None, None, integers]


def test_what_was_measured_worse_after_an_export_is_not_combined() -> None:
    export, half, *_ = LED
    measured = {export.digest: [point(2.0)], half.digest: [point(0.5)]}
    ruled_out = [pruned(recipe, measured, parent=PARENT, ends=Ends.of(LED)) for recipe in LED]
    assert ruled_out == [None, None, None, None, half.digest, None]


def test_another_single_step_rules_out_as_the_parent_does() -> None:
    fp16, static = RECIPES[0].digest, RECIPES[1].digest
    measured = {fp16: [point(1.5)], static: [point(3.0)]}
    assert {pruned(recipe, measured, parent=PARENT) for recipe in RECIPES if fp16 in parts_of(recipe)} == {
        fp16
    }


def test_why_it_ended_is_said() -> None:
    everything = {recipe.digest: [point(2.0)] for recipe in RECIPES}
    for measured, budget, minutes, why in (
        ({}, Budget(max_jobs=0, max_minutes=9), 0, "The budget of 0 jobs is used up; 8 recipes were left."),
        (
            {},
            Budget(max_jobs=9, max_minutes=9),
            9,
            "The budget of 9 minutes is used up; 8 recipes were left.",
        ),
        (everything, AMPLE, 0, "Everything worth trying was measured: 8 of 8 recipes."),
    ):
        assert decide(RECIPES, measured, parent=PARENT, budget=budget, elapsed_minutes=minutes) == Stop(
            why=why
        )
