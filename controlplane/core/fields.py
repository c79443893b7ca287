"""Serializers that take JSON at its word: a number is not a text, `true` is not 1, and unknown fields are refused."""

from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from controlplane.core.names import UNREADABLE, is_readable


class Text(serializers.CharField):
    """Only a JSON string, which people can read: see `is_readable`."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise ValidationError("This must be a text.")
        if not is_readable(data):
            raise ValidationError(UNREADABLE)
        return super().to_internal_value(data)


class Whole(serializers.IntegerField):
    """Only a JSON integer."""

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            raise ValidationError("This must be a whole number.")
        return super().to_internal_value(data)


class Number(serializers.FloatField):
    """Only a JSON number that is finite."""

    def to_internal_value(self, data: Any) -> float:
        if not isinstance(data, int | float) or isinstance(data, bool):
            raise ValidationError("This must be a number.")
        return super().to_internal_value(data)


class Flag(serializers.BooleanField):
    """Only true or false."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise ValidationError("This must be true or false.")
        return data


class Shaped(serializers.JSONField):
    """JSON that is judged by the values it becomes; `shape` is how the contract draws it.

    Here only the outermost kind is looked at: `kind` is list or dict.
    """

    def __init__(self, shape: Any, *, kind: type[list[Any]] | type[dict[str, Any]], **options: Any) -> None:
        super().__init__(**options)
        self.shape = shape
        self.kind = kind

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, self.kind):
            raise ValidationError("This must be a list." if self.kind is list else "This must be an object.")
        return data


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses a body that is no object, and fields that it does not know."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValidationError({"body": ["This must be a JSON object."]})
        unknown = sorted(set(data) - {name for name, field in self.fields.items() if not field.read_only})
        if unknown:
            raise ValidationError({name: ["This field is not known here."] for name in unknown})
        return super().to_internal_value(data)
