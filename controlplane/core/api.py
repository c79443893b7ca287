"""The base of API views: the actor, strict input, and pages of documents built by hand.

Documents come from plain functions, not ModelSerializers: a list of 50 rows costs a fifth that way.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from django.db.models import QuerySet
from django.http import HttpRequest
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer

from controlplane.core.pagination import Keyed, Page, paginate


def parse(serializer: type[Serializer[Any]], request: Request) -> dict[str, Any]:
    """The validated body. Raises DRF's ValidationError, which becomes a 400 problem."""
    checked = serializer(data=request.data)
    checked.is_valid(raise_exception=True)
    return dict(checked.validated_data)


def page_response[Row: Keyed](
    rows: QuerySet[Any, Row], request: Request | HttpRequest, document: Callable[[Row], Mapping[str, Any]]
) -> Response:
    """`{"items": [...], "next": address or null}`. One query plus what the queryset prefetches."""
    return answer_page(paginate(rows, request.GET.dict()), request, document)


def answer_page[Row: Keyed](
    page: Page[Row], request: Request | HttpRequest, document: Callable[[Row], Mapping[str, Any]]
) -> Response:
    """The same for a page that was found already."""
    query = page.next_query()
    if query is not None:
        kept = "".join(
            f"&{name}={quote(str(value))}"
            for name, value in request.GET.items()
            if name not in {"cursor", "limit"}
        )
        query = request.build_absolute_uri(request.path) + query + kept
    return Response({"items": [document(row) for row in page.rows], "next": query})
