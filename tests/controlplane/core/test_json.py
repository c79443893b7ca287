"""JSON at the API's edge: what is read, and what is refused before anything else sees it."""

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.errors import InvalidInput
from controlplane.core.json import MAX_DEPTH, depth, loads

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner, max_size=4
        )
    ),
    max_leaves=20,
)


def nesting(value: Any) -> int:
    match value:
        case dict():
            return 1 + max((nesting(inner) for inner in value.values()), default=0)
        case list():
            return 1 + max((nesting(inner) for inner in value), default=0)
    return 0


@given(values)
def test_what_another_writer_wrote_is_read_unharmed(value: Any) -> None:
    assert loads(json.dumps(value).encode()) == value
    assert loads(orjson.dumps(value)) == value


@given(values)
def test_depth_is_that_of_the_value_whatever_its_strings_contain(value: Any) -> None:
    assert depth(json.dumps(value).encode()) == nesting(value)


@pytest.mark.parametrize("text", ["[[[", '"]]]', '\\"[[[[', "\\\\", '\\\\"[', '"[{' * 50])
def test_brackets_in_strings_are_no_nesting(text: str) -> None:
    assert depth(json.dumps([text, {text: text}]).encode()) == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[" * 100_000, "json_too_deep"),
        (b'{"a":' * 100_000, "json_too_deep"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "json_too_deep"),
        (b'{"a": [', "invalid_json"),
        (b'{"a": 1,}', "invalid_json"),
        (b'\xef\xbb\xbf{"a": 1}', "invalid_json"),
        ('{"a": 1}'.encode("utf-16"), "invalid_json"),
        ('{"a": 1}'.encode("utf-16-le"), "invalid_json"),
        (b"NaN", "invalid_json"),
        (b'{"a": Infinity}', "invalid_json"),
        (b'{"a": 1e400}', "invalid_json"),
        (b'{"a": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b'{"a": "\\ud800"}', "invalid_json"),
        (b'{"\\udfff": 1}', "invalid_json"),
        (b'{"a": "\xed\xa0\x80"}', "invalid_json"),
        (b'{"a": "\x00"}', "invalid_json"),
        (b'{"a": "\\u0000"}', "nul_character"),
        (b'{"\\u0000": 1}', "nul_character"),
        (b'{"a": "\\\\\\u0000"}', "nul_character"),
        (b"", "invalid_json"),
        (b"\x00", "invalid_json"),
        (b"{'a': 1}", "invalid_json"),
    ],
)
def test_what_is_no_json_of_ours_is_a_bad_request(body: bytes, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        loads(body)
    assert refused.value.code == code
    assert refused.value.status == 400


def test_the_deepest_allowed_nesting_is_read() -> None:
    assert nesting(loads(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)) == MAX_DEPTH


def test_an_escaped_backslash_before_u0000_is_plain_text() -> None:
    assert loads(b'{"a": "\\\\u0000"}') == {"a": "\\u0000"}


@pytest.mark.parametrize(
    "body",
    [b'"' + b'\\"' * 500_000, b'"' * 1_000_000, b"\\" * 1_000_001, b'"\\' * 500_000, b"[]" * 500_000],
    ids=["a string that never ends", "quotes", "backslashes", "both", "brackets"],
)
def test_a_hostile_megabyte_costs_no_more_than_a_plain_one(body: bytes) -> None:
    """Quadratic scanning would take minutes; ten seconds is far from both."""
    started = time.process_time()
    with pytest.raises(InvalidInput):
        loads(body)
    assert time.process_time() - started < 10
