"""Bodies are taken at their word: no number for a text, no unknown field, no list for an object."""

from typing import Any

import pytest
from rest_framework import serializers

from controlplane.core.fields import Flag, StrictSerializer, Text, Whole


class Body(StrictSerializer):
    text = Text(required=False, max_length=10)
    whole = Whole(required=False, min_value=0, max_value=100)
    flag = Flag(required=False)


def errors_of(data: Any) -> Any:
    checked = Body(data=data)
    return {} if checked.is_valid() else checked.errors


@pytest.mark.parametrize("data", [{}, {"text": "a\tb\n"}, {"whole": 0}, {"whole": 100}, {"flag": False}])
def test_what_fits_is_taken(data: dict[str, Any]) -> None:
    checked = Body(data=data)
    assert checked.is_valid()
    assert checked.validated_data.keys() == data.keys()


@pytest.mark.parametrize("value", [1, 1.5, True, None, [], ["a"], {"a": 1}, "a\0b", "a\x1b[0m", "x" * 11, ""])
def test_a_text_is_a_json_string_that_can_be_shown(value: Any) -> None:
    assert "text" in errors_of({"text": value})


@pytest.mark.parametrize("value", [True, False, "1", 1.0, 1e3, None, [], {}, -1, 101, 2**70])
def test_a_whole_number_is_a_json_integer_in_range(value: Any) -> None:
    assert "whole" in errors_of({"whole": value})


@pytest.mark.parametrize("value", ["true", 1, 0, None, [], {}])
def test_a_flag_is_true_or_false(value: Any) -> None:
    assert "flag" in errors_of({"flag": value})


@pytest.mark.parametrize("value", [[], [{}], "text", 1, None, True])
def test_a_body_is_an_object(value: Any) -> None:
    checked = Body(data=value)
    assert not checked.is_valid()


@pytest.mark.parametrize("name", ["id", "team", "owner", "is_admin", "state", "__class__", "a\nb"])
def test_an_unknown_field_is_named_and_refused(name: str) -> None:
    assert errors_of({"text": "fine", name: 1}) == {name: ["This field is not known here."]}


def test_a_read_only_field_cannot_be_sent() -> None:
    class WithId(StrictSerializer):
        id = serializers.IntegerField(read_only=True)

    assert not WithId(data={"id": 1}).is_valid()
