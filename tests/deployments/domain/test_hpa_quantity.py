"""Quantities are read, rounded and written as Kubernetes does."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.domain.hpa import InvalidHpa, Quantity


@pytest.mark.parametrize(
    ("text", "milli"),
    [
        ("10", 10_000),
        ("2500m", 2_500),
        ("1k", 1_000_000),
        ("1Ki", 1_024_000),
        ("1.5", 1_500),
        (".5", 500),
        ("5.", 5_000),
        ("+3", 3_000),
        ("-1500m", -1_500),
        ("1e3", 1_000_000),
        ("1E3", 1_000_000),
        ("1E", 10**21),
        ("25e-1", 2_500),
        ("2Mi", 2 * 1024**2 * 1000),
        ("1n", 1),
        ("1000001n", 2),
        ("0.0001", 1),
        (7, 7_000),
        (13.591, 13_591),
        (0.1, 100),
        (Decimal("0.0005"), 1),
    ],
)
def test_a_quantity_is_compared_in_thousandths_rounded_up(text: object, milli: int) -> None:
    assert Quantity.parse(text).milli == milli


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 10",
        "10 ",
        "ten",
        "1kk",
        "1ki",
        "1K",
        "1e",
        "1e999",
        "0x10",
        "--1",
        "nan",
        "inf",
        "1_000",
        "١٠",
        "9" * 20,
        "1" * 100,
        float("nan"),
        float("inf"),
        Decimal("NaN"),
        True,
        None,
        [],
        {},
    ],
)
def test_what_is_no_quantity_is_refused_by_name(text: object) -> None:
    with pytest.raises(InvalidHpa) as refused:
        Quantity.parse(text, field="averageValue")
    assert refused.value.field == "averageValue"
    assert len(str(refused.value)) < 200


@given(st.integers(min_value=-(2**63 - 1), max_value=2**63 - 1))
def test_written_quantities_read_back_equal(nano: int) -> None:
    assert Quantity.parse(str(Quantity(nano))) == Quantity(nano)


@given(st.decimals(min_value=0, max_value=10**9, places=9))
def test_rounding_never_loses_load(amount: Decimal) -> None:
    milli = Quantity.parse(str(amount)).milli
    assert Decimal(milli) / 1000 >= amount > Decimal(milli - 1) / 1000


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        Quantity.parse(text)
    except InvalidHpa:
        return


@pytest.mark.parametrize(
    ("text", "words"), [("1k", "1,000"), ("2500m", "2.5"), ("0", "0"), ("-1500m", "-1.5")]
)
def test_people_read_plain_numbers(text: str, words: str) -> None:
    assert Quantity.parse(text).words() == words
