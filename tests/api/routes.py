"""Every route of /api/v1, read from the URL resolver: a new one is tried by every test of this folder at once."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver

from controlplane.api import contract

ROOT = "/api/v1/"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MUTATIONS = frozenset(METHODS) - {"GET"}
PAGES = {"docs"}
"""Addresses below /api/v1/ that are pages for people."""

_PARAMETER = re.compile(r"<(?:(\w+):)?(\w+)>")


@dataclass(frozen=True, kw_only=True)
class Route:
    """`parameters` names each path parameter with its converter."""

    name: str
    template: str
    parameters: tuple[tuple[str, str], ...]
    methods: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one route; `document` is what the contract says of it."""

    route: Route
    method: str
    document: Any

    def __str__(self) -> str:
        return f"{self.method} {self.route.template}"

    @property
    def key(self) -> tuple[str, str]:
        return self.method, self.route.name

    @property
    def body_types(self) -> frozenset[str]:
        return frozenset(self.document.get("requestBody", {}).get("content", ()))

    @property
    def takes_json(self) -> bool:
        return "application/json" in self.body_types

    @property
    def query_names(self) -> frozenset[str]:
        return frozenset(one["name"] for one in self.document.get("parameters", ()) if one["in"] == "query")

    def body_schema(self) -> dict[str, Any]:
        """The JSON body's schema, one reference resolved."""
        return resolved(self.document["requestBody"]["content"]["application/json"]["schema"])


def resolved(schema: Any) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = contract()["components"]["schemas"][name] if name else schema
    return found


@cache
def routes() -> tuple[Route, ...]:
    found = [route for route in _below(get_resolver("controlplane.api"), "") if route.name not in PAGES]
    assert len(found) > 40, "the resolver no longer shows the API"
    return tuple(found)


def _below(resolver: URLResolver, prefix: str) -> Iterator[Route]:
    for one in resolver.url_patterns:
        text = prefix + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from _below(one, text)
        else:
            yield _route(one, text)


def _route(one: URLPattern, text: str) -> Route:
    view = getattr(one.callback, "view_class", None)
    methods = [method for method in METHODS if hasattr(view, method.lower())]
    return Route(
        name=str(one.name),
        template=ROOT + _PARAMETER.sub(r"{\2}", text),
        parameters=tuple((name, converter or "str") for converter, name in _PARAMETER.findall(text)),
        methods=tuple(methods),
    )


@cache
def operations() -> tuple[Operation, ...]:
    """Every operation but the contract itself."""
    paths = contract()["paths"]
    return tuple(
        Operation(route=route, method=method, document=paths[route.template][method.lower()])
        for route in routes()
        if route.name != "schema"
        for method in route.methods
    )


def mutations() -> tuple[Operation, ...]:
    return tuple(one for one in operations() if one.method in MUTATIONS)


def taking_json() -> tuple[Operation, ...]:
    return tuple(one for one in operations() if one.takes_json)
