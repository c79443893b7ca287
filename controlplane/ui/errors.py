"""Error pages that keep the layout: what happened, what to do, and the request id to copy."""

import sys

from django.http import HttpRequest, HttpResponse

from controlplane.core import problems
from controlplane.core.errors import Forbidden, NotFound, TooMany
from controlplane.ui.middleware import answer, as_problem


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Also for a form that is too large, which is not a 400."""
    known = problems.translate(exception)
    return answer(known or problems.bad_request(), request)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(Forbidden("forbidden", "Your role does not allow this.", str(exception)), request)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    detail = "It does not exist, it was removed, or it belongs to another team."
    return answer(NotFound("not_found", "There is nothing here.", detail), request)


def server_error(request: HttpRequest) -> HttpResponse:
    """Called while the exception that a middleware raised is being handled; with the database down, most are."""
    error = sys.exception()
    return answer(as_problem(error if isinstance(error, Exception) else RuntimeError()), request)


def too_many(request: HttpRequest) -> HttpResponse:
    """allauth's answer to its rate limits."""
    return answer(
        TooMany("throttled", "Too many attempts.", "Wait a minute, then try again.", retry_after_s=60),
        request,
    )


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return answer(
        Forbidden(
            "csrf_failed",
            "The form could not be verified.",
            "Cookies may be off, or the page is older than your login. Reload the page and try again.",
        ),
        request,
    )
