"""The REST API, put together from what each app offers under /api/v1/, and its own description."""

from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import include, path
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

app_name = "api"


@cache
def contract() -> dict[str, Any]:
    """The OpenAPI document, made once in a process: it depends on nothing but the code."""
    made: dict[str, Any] = SchemaGenerator().get_schema(public=True)  # type: ignore[no-untyped-call]
    return made


class Schema(APIView):
    @extend_schema(exclude=True)
    def get(self, request: Request) -> Response:
        """The API's contract in OpenAPI 3.1."""
        return Response(contract())


def docs(request: HttpRequest) -> HttpResponse:
    """The contract to read and try, for people who are logged in."""
    return render(request, "api/docs.html")


urlpatterns = [
    path("", include("controlplane.registry.api.urls")),
    path("", include("controlplane.accounts.api.urls")),
    path("", include("optimizer.api.urls")),
    path("", include("deployments.api.urls")),
    path("schema/", Schema.as_view(), name="schema"),
    path("docs/", docs, name="docs"),
]
