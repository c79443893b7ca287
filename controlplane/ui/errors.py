"""Error pages that keep the layout: what happened, what to do, and the request id to copy."""

from django.http import HttpRequest, HttpResponse

from controlplane.core.errors import Forbidden, InvalidInput, NotFound, SlipwayError
from controlplane.ui.middleware import answer


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(InvalidInput("bad_request", "The request cannot be understood."), request)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(Forbidden("forbidden", "Your role does not allow this.", str(exception)), request)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    detail = "It does not exist, it was renamed, or it belongs to another team."
    return answer(NotFound("not_found", "There is nothing here.", detail), request)


def server_error(request: HttpRequest) -> HttpResponse:
    return answer(SlipwayError("internal_error", "Something went wrong on our side."), request)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return answer(
        Forbidden(
            "csrf_failed",
            "The form could not be verified.",
            "Cookies may be off, or the page is older than your login. Reload the page and try again.",
        ),
        request,
    )
