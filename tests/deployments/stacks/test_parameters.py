"""The limits of what may be set on the fastapi stack."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deployments.stacks.fastapi.parameters import Parameters


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("max_batch_size", 1, 1024),
        ("max_queue_delay_microseconds", 0, 1_000_000),
        ("max_queue_size", 1, 100_000),
        ("threads", 1, 64),
    ],
)
def test_each_number_has_its_two_ends(name: str, low: int, high: int) -> None:
    assert Parameters.model_validate({name: low})
    assert Parameters.model_validate({name: high})
    for beyond in (low - 1, high + 1):
        with pytest.raises(ValidationError):
            Parameters.model_validate({name: beyond})


@pytest.mark.parametrize("value", [True, "8", 8.5, None, [8]])
def test_what_only_looks_like_a_number_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        Parameters.model_validate({"max_batch_size": value})


@given(st.lists(st.integers(-2, 40), max_size=6))
def test_preferred_sizes_are_rising_and_fit_the_largest_batch(sizes: list[int]) -> None:
    allowed = sizes == sorted(set(sizes)) and all(1 <= size <= 32 for size in sizes)
    try:
        read = Parameters.model_validate({"max_batch_size": 32, "preferred_batch_size": sizes})
    except ValidationError:
        assert not allowed
    else:
        assert allowed
        assert list(read.preferred_batch_size) == sizes
