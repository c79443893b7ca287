"""How the API's contract is written: shapes of documents, and what every operation has in common.

A document's shape is a TypedDict that its hand-built function returns, so the type checker holds the two
together and the OpenAPI page is made from the same lines. Refused: serializers that exist for the page only;
nothing would notice when they stop being true.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NotRequired, TypedDict, get_args, get_origin, is_typeddict

from django.apps import apps
from drf_spectacular.extensions import OpenApiSerializerExtension, OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.utils import OpenApiParameter
from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema

from controlplane.core.fields import Shaped, StrictSerializer
from controlplane.core.pagination import DEFAULT_LIMIT, MAX_LIMIT
from controlplane.core.problems import CONTENT_TYPE

_CONFIG = ConfigDict(extra="forbid", use_attribute_docstrings=True)
_REFERENCE = "#/components/schemas/{model}"

PAGING = [
    OpenApiParameter(
        "cursor",
        {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
        description="Rows after this one; follow `next` instead of making it up.",
    ),
    OpenApiParameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
        description="Rows of one page.",
    ),
]


def sorting(sorts: Iterable[str]) -> list[OpenApiParameter]:
    """The parameters of a list that can be sorted by these words."""
    words = [word for name in sorts for word in (name, f"-{name}")]
    after = "What the row before this page has in the sorted column; follow `next` instead of making it up."
    return [
        query("sort", enum=words, description="Newest first without it; “-” turns the order round."),
        query("after", description=after),
    ]


class Page[Row](TypedDict):
    """One page of a list."""

    items: list[Row]
    next: str | None


class FieldMessages(TypedDict):
    field: str
    messages: list[str]


class Problem(TypedDict):
    """RFC 9457. `code` is stable; `detail` says what was wrong with the values and what to do."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str
    request_id: str
    errors: NotRequired[list[FieldMessages]]


class Like:
    """`Annotated[dict[str, Any], Like(Value)]`: a dict to Python, the shape of `Value` to the reader.

    For values that travel by a `to_json` of their own, and for texts that are words of an enum.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(self.value)


def query(name: str, shape: Any = str, description: str = "", **more: Any) -> OpenApiParameter:
    return OpenApiParameter(name, shape, description=description, **more)


def header(name: str, description: str, **more: Any) -> OpenApiParameter:
    return OpenApiParameter(name, str, OpenApiParameter.HEADER, description=description, **more)


def refusals(*statuses: int) -> dict[Any, Any]:
    """Answers of an operation beyond those that all have; see `Operation`."""
    return {(status, CONTENT_TYPE): Problem for status in statuses}


class Operation(AutoSchema):
    """One method of one address. Summary and description are its docstring, its tag is the app's name."""

    def get_operation_id(self) -> str:
        words = re.sub(r"(?<!^)(?=[A-Z])", "_", type(self.view).__name__).lower()
        return f"{self.method.lower()}_{words}"

    def get_summary(self) -> str:
        first: str = re.split(r"[.:;](?:\s|$)", super().get_description(), maxsplit=1)[0]
        return " ".join(first.split())

    def get_tags(self) -> list[str]:
        room = apps.get_containing_app_config(type(self.view).__module__)
        return [str(room.verbose_name)] if room else []

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        found: dict[str, Any] = super()._get_response_bodies(direction)
        for status in map(str, self._refusals()):
            if status not in found:
                found[status] = self._get_response_for_code(Problem, status, [CONTENT_TYPE], direction)  # type: ignore[no-untyped-call]
        return {status: found[status] | {"description": _WORDS[status]} for status in sorted(found)}

    def _refusals(self) -> Iterable[int]:
        """Bad query, no login, nothing there, no JSON wanted, a body as no address takes it, database away."""
        changes = set() if self.method == "GET" else {403, 413}
        return {400, 401, 404, 406, 411, 415, 503} | changes


_WORDS = {
    "200": "Done.",
    "201": "Made.",
    "202": "Accepted; it happens in the background.",
    "204": "Done; there is nothing to say.",
    "400": "The request cannot be understood.",
    "401": "No valid token or session.",
    "403": "The role does not allow it.",
    "404": "Not there, or another team's.",
    "406": "Answers are JSON only.",
    "409": "The state does not allow it.",
    "411": "The body's length was not announced.",
    "412": "What runs has moved since it was looked at.",
    "413": "Too large.",
    "415": "This content type or encoding is not read.",
    "422": "Understood, and refused for what it says.",
    "428": "If-Match is missing.",
    "429": "Too many for now; Retry-After says when to come back.",
    "503": "A part is down; waiting helps.",
    "507": "No room for the upload.",
}


class _Shape(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """TypedDicts, and pages of them, as components."""

    target_class = dict
    priority = 1

    @classmethod
    def _matches(cls, target: Any) -> bool:
        return is_typeddict(get_origin(target) or target)

    def get_name(self, auto_schema: AutoSchema, direction: Any) -> str:
        row = get_args(self.target)
        return f"{row[0].__name__}Page" if row else str(self.target.__name__)

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        row = get_args(self.target)
        if row:
            return _page(auto_schema.resolve_serializer(row[0], direction).ref)
        _, parts = _mapped(self.target, mode="serialization")
        own: dict[str, Any] = parts.pop(self.target.__name__)
        _register(auto_schema, parts)
        return own | {"additionalProperties": True} if self.target is Problem else own

    def get_identity(self, auto_schema: AutoSchema, direction: Any) -> str:
        return self.get_name(auto_schema, direction)


class _ShapedField(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """A field that is checked by the values it becomes."""

    target_class = Shaped

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        shape, parts = _mapped(self.target.shape, mode="validation")
        _register(auto_schema, parts)
        return shape


class _Strict(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """Fields that are not named are refused, and the contract says so."""

    target_class = StrictSerializer
    match_subclasses = True

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        found: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)  # type: ignore[no-untyped-call]
        if type(self.target).__doc__ is None:
            found.pop("description", None)  # the base class's own
        return found | {"additionalProperties": False}


def _page(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": row},
            "next": {
                "type": ["string", "null"],
                "format": "uri",
                "description": "The address of the next page; null on the last.",
            },
        },
        "required": ["items", "next"],
        "additionalProperties": False,
    }


def _mapped(shape: Any, *, mode: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The shape's JSON schema, and by name what it refers to."""
    whole = TypeAdapter(list[shape], config=_CONFIG).json_schema(mode=mode, ref_template=_REFERENCE)
    return _plain(whole["items"]), {name: _plain(part) for name, part in whole.get("$defs", {}).items()}


def _register(auto_schema: AutoSchema, parts: Mapping[str, dict[str, Any]]) -> None:
    """Raises ValueError where two rooms use one name for two shapes."""
    for name, schema in parts.items():
        component = ResolvedComponent(name, ResolvedComponent.SCHEMA, schema, name)  # type: ignore[no-untyped-call]
        if component not in auto_schema.registry:
            auto_schema.registry.register(component)
        elif auto_schema.registry[component].schema not in (None, schema):
            raise ValueError(f"“{name}” is the name of two shapes in the API")


def _plain(schema: Any) -> Any:
    """Without pydantic's titles, which repeat the names."""
    match schema:
        case dict():
            return {
                name: {field: _plain(inner) for field, inner in value.items()}
                if name == "properties"
                else _plain(value)
                for name, value in schema.items()
                if not (name == "title" and isinstance(value, str))
            }
        case list():
            return [_plain(value) for value in schema]
    return schema
