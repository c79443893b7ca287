"""Errors as the API says them: RFC 9457 problem documents, whatever raised them."""

from typing import Any

import orjson
from django.core.exceptions import (
    BadRequest,
    DisallowedHost,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.http import Http404, HttpRequest, HttpResponse
from rest_framework import exceptions
from rest_framework.response import Response

from controlplane.core.errors import (
    Forbidden,
    InvalidInput,
    NotFound,
    SlipwayError,
    TooLarge,
    TooMany,
    UnsupportedMediaType,
)

CONTENT_TYPE = "application/problem+json"


class Unauthenticated(SlipwayError):
    status = 401


class LengthRequired(SlipwayError):
    status = 411


class MethodNotAllowed(SlipwayError):
    status = 405


class NotAcceptable(SlipwayError):
    status = 406


def _flatten(detail: Any, prefix: str = "") -> dict[str, list[str]]:
    if isinstance(detail, dict):
        found: dict[str, list[str]] = {}
        for name, inner in detail.items():
            found |= _flatten(inner, f"{prefix}.{name}" if prefix else str(name))
        return found
    messages = detail if isinstance(detail, list) else [detail]
    return {prefix or "body": [str(message) for message in messages]}


def _from_validation(error: exceptions.ValidationError) -> SlipwayError:
    fields = _flatten(error.detail)
    first = next(iter(fields.items()), ("body", ["is not valid."]))
    return InvalidInput(
        "invalid_input",
        "The request has values that cannot be used.",
        f"{first[0]}: {first[1][0]}",
        fields=fields,
    )


def translate(error: Exception) -> SlipwayError | None:
    """Our form of what Django or DRF raised; None for what is a fault of ours."""
    match error:
        case SlipwayError():
            return error
        case exceptions.ValidationError():
            return _from_validation(error)
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return Unauthenticated(
                "not_authenticated",
                "This needs a valid API token or session.",
                "Send “Authorization: Bearer <token>”; make a token under Settings.",
            )
        case exceptions.MethodNotAllowed():
            return MethodNotAllowed(
                "method_not_allowed", "This address does not take that method.", str(error.detail)
            )
        case exceptions.UnsupportedMediaType():
            return UnsupportedMediaType(
                "unsupported_media_type", "This content type is not read here.", str(error.detail)
            )
        case exceptions.NotAcceptable():
            return NotAcceptable(
                "not_acceptable",
                "Answers here are application/json.",
                "Send “Accept: application/json”, or none.",
            )
        case exceptions.Throttled():
            return TooMany(
                "throttled",
                "Too many requests.",
                str(error.detail),
                retry_after_s=getattr(error, "wait", None) or 1,
            )
        case exceptions.PermissionDenied() | PermissionDenied():
            detail = getattr(error, "detail", None) or str(error)
            return Forbidden("forbidden", "Your role does not allow this.", str(detail))
        case Http404() | exceptions.NotFound():
            return NotFound(
                "not_found", "There is nothing here.", "It does not exist, or it belongs to another team."
            )
        case RequestDataTooBig():
            return TooLarge("body_too_large", "The request is too large.", str(error))
        case exceptions.ParseError():
            return InvalidInput("invalid_body", "The request's body cannot be read.", str(error.detail))
        case DisallowedHost():
            return InvalidInput(
                "unknown_host",
                "Slipway is not known by the host that was asked for.",
                "Use its own address. An operator can name further hosts in SLIPWAY_HOSTS.",
            )
        case BadRequest() | SuspiciousOperation():
            return bad_request()
    return None


def bad_request() -> SlipwayError:
    """For what no better sentence is known."""
    return InvalidInput(
        "bad_request", "The request cannot be understood.", "Check its address, its headers and its body."
    )


def method_not_allowed() -> SlipwayError:
    return MethodNotAllowed(
        "method_not_allowed",
        "This address does not take that method.",
        "The header Allow lists those it takes.",
    )


def headers(error: SlipwayError) -> dict[str, str]:
    found = (
        {"Retry-After": str(max(1, round(error.retry_after_s)))} if error.retry_after_s is not None else {}
    )
    if error.status == 401:
        found["WWW-Authenticate"] = "Bearer"
    return found


def document(error: SlipwayError, request: HttpRequest) -> dict[str, Any]:
    return error.problem() | {"instance": request.path, "request_id": getattr(request, "request_id", "")}


def response(error: SlipwayError, request: HttpRequest) -> HttpResponse:
    body = orjson.dumps(document(error, request))
    return HttpResponse(body, status=error.status, content_type=CONTENT_TYPE, headers=headers(error))


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler. None lets the middleware answer what is a fault of ours."""
    problem = translate(error)
    if problem is None:
        return None
    request = context["request"]
    answer = Response(
        document(problem, request), status=problem.status, content_type=CONTENT_TYPE, headers=headers(problem)
    )
    answer.exception = True
    return answer
