"""The base of API views: the actor, strict input, and pages of documents built by hand.

Documents come from plain functions, not ModelSerializers: a list of 50 rows costs a fifth that way.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from django.db.models import Model, QuerySet
from django.http import HttpRequest
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer

from controlplane.core.errors import InvalidInput
from controlplane.core.pagination import PLACE, Keyed, Order, Page, paginate


def parse(serializer: type[Serializer[Any]], request: Request) -> dict[str, Any]:
    """The validated body. Raises DRF's ValidationError, which becomes a 400 problem."""
    checked = serializer(data=request.data)
    checked.is_valid(raise_exception=True)
    return dict(checked.validated_data)


def word(request: Request, name: str, known: Iterable[str]) -> str:
    """The query parameter, one of these words, or "" without it. Raises InvalidInput."""
    text = request.GET.get(name, "")
    words = list(known)
    if text and text not in words:
        raise InvalidInput(
            f"invalid_{name}",
            f"There is no such {name}.",
            f"Use one of: {', '.join(words)}.",
            fields={name: [f"Use one of: {', '.join(words)}."]},
        )
    return text


def page_response[Row: Model](
    rows: QuerySet[Row],
    request: Request | HttpRequest,
    document: Callable[[Row], Mapping[str, Any]],
    *,
    sorts: Mapping[str, str] = MappingProxyType({}),
    default: str = "",
) -> Response:
    """`{"items": [...], "next": address or null}`. One query plus what the queryset prefetches.

    `default` is the word of `sorts` that a list without `?sort=` is sorted by; without one the newest come first.
    """
    parameters = {"sort": default} | request.GET.dict()
    page = paginate(rows, parameters, order=Order.of(parameters, sorts))
    return answer_page(page, request, document)


def answer_page[Row: Keyed](
    page: Page[Row], request: Request | HttpRequest, document: Callable[[Row], Mapping[str, Any]]
) -> Response:
    """The same for a page that was found already."""
    query = page.next_query()
    if query is not None:
        kept = "".join(
            f"&{name}={quote(str(value))}"
            for name, value in request.GET.items()
            if name not in {*PLACE, "limit"}
        )
        query = request.build_absolute_uri(request.path) + query + kept
    return Response({"items": [document(row) for row in page.rows], "next": query})
