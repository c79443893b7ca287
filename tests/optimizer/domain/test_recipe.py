"""A recipe survives the trip through JSON, and has one digest however it was written down."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.errors import Unprocessable
from optimizer.domain.recipe import MAX_STEPS, Recipe, Step

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
steps = st.builds(
    Step,
    technique=st.text(min_size=1, max_size=12),
    params=st.dictionaries(st.text(max_size=8), values, max_size=4),
)
recipes = st.lists(steps, min_size=1, max_size=MAX_STEPS).map(lambda rows: Recipe(steps=tuple(rows)))


@given(recipes)
def test_a_recipe_read_back_is_the_same_recipe(recipe: Recipe) -> None:
    back = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert back.to_json() == recipe.to_json()
    assert back.digest == recipe.digest


def test_the_order_of_parameters_does_not_change_the_digest_and_the_order_of_steps_does() -> None:
    first, second = Step(technique="a", params={"x": 1, "y": [2]}), Step(technique="b")
    turned = Step(technique="a", params={"y": [2], "x": 1})
    assert Recipe(steps=(first, second)).digest == Recipe(steps=(turned, second)).digest
    assert Recipe(steps=(first, second)).digest != Recipe(steps=(second, first)).digest


@given(recipes, recipes)
def test_different_recipes_have_different_digests(one: Recipe, other: Recipe) -> None:
    assert (one.digest == other.digest) == (
        json.dumps(one.to_json(), sort_keys=True) == json.dumps(other.to_json(), sort_keys=True)
    )


def test_a_recipe_is_named_after_its_steps() -> None:
    assert (
        Recipe(steps=(Step(technique="onnx-graph"), Step(technique="int8-static"))).name
        == "onnx-graph + int8-static"
    )


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, "list of steps"),
        ("onnx-graph", "list of steps"),
        ([], "0 steps"),
        ([{"technique": "x"}] * (MAX_STEPS + 1), f"{MAX_STEPS + 1} steps"),
        ([{"params": {}}], "Step 1 names no technique"),
        ([{"technique": "a"}, {"technique": 3}], "Step 2 names no technique"),
        ([{"technique": "a", "parameters": {}}], "unknown fields: parameters"),
        ([{"technique": "a", "params": []}], "not an object"),
        ([{"technique": "a", "params": {"x": float("nan")}}], "not plain JSON"),
        ([{"technique": "a", "params": {"x": {1, 2}}}], "not plain JSON"),
    ],
)
def test_what_is_no_recipe_is_refused_with_the_place_where_it_breaks(value: object, says: str) -> None:
    with pytest.raises(Unprocessable, match=says) as caught:
        Recipe.from_json(value)
    assert caught.value.code == "invalid_recipe"
