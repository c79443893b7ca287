"""Frozen values as JSON documents, read strictly.

What crosses a socket or lies on disk is checked field by field against the dataclass that owns it, so a
document of another shape is refused at the door with the path of the field, never half understood later.
Refused: pydantic (the node and the domain stay free of it), and a hand-written reader per value (they drift).
"""

import dataclasses
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

from controlplane.core.errors import InvalidInput

_SCALARS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def refuse(path: str, problem: str) -> InvalidInput:
    """The error of a document whose field at `path` cannot be used."""
    title = "The document has a value that cannot be used."
    return InvalidInput("invalid_document", title, f"{path} {problem}.", fields={path: [problem]})


class Document:
    """Base of values that travel: `to_json` gives plain JSON types, `from_json` is its strict inverse."""

    def to_json(self) -> dict[str, Any]:
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Raises InvalidInput for a missing, unknown or wrongly typed field, naming its path."""
        return _read_document(cls, data, cls.__name__)


def _plain(value: Any) -> Any:
    match value:
        case Document():
            return value.to_json()
        case datetime():
            return value.astimezone(UTC).isoformat()
        case StrEnum():
            return value.value
        case tuple() | list():
            return [_plain(item) for item in value]
        case Mapping():
            return {name: _plain(item) for name, item in value.items()}
    return value


# Reading the annotations anew for every document costs more than the rest of the reading.
_hints: Callable[[Any], dict[str, Any]] = cache(get_type_hints)


def _read_document[T: Document](cls: type[T], data: Any, path: str) -> T:
    if not isinstance(data, Mapping):
        raise refuse(path, "must be an object")
    known = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(str(name) for name in data if name not in known):
        raise refuse(f"{path}.{unknown[0]}", "is not a known field")
    for name, field in known.items():
        if name not in data and field.default is MISSING and field.default_factory is MISSING:
            raise refuse(f"{path}.{name}", "is missing")
    hints = _hints(cls)
    return cls(**{name: _read(hints[name], value, f"{path}.{name}") for name, value in data.items()})


def _read(kind: Any, value: Any, path: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return (
            None
            if value is None
            else _read(next(one for one in arguments if one is not type(None)), value, path)
        )
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise refuse(path, "must be a list")
        return tuple(_read(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise refuse(path, "must be an object")
        return {name: _read(arguments[1], item, f"{path}.{name}") for name, item in value.items()}
    return value if kind is Any else _read_plain(kind, value, path)


def _read_plain(kind: Any, value: Any, path: str) -> Any:
    if issubclass(kind, Document):
        return _read_document(kind, value, path)
    if issubclass(kind, datetime):
        return _read_time(value, path)
    if issubclass(kind, StrEnum):
        try:
            return kind(value)
        except ValueError:
            raise refuse(path, f"must be one of {', '.join(kind)}") from None
    # bool is an int to Python, but not to a reader of the document.
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise refuse(path, f"must be {_SCALARS[kind]}")
    return kind(value)


def _read_time(value: Any, path: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise refuse(path, "must be a time such as 2026-11-24T12:00:00+00:00") from None
    if moment.tzinfo is None:
        raise refuse(path, "must be a time with its offset from UTC")
    return moment.astimezone(UTC)
