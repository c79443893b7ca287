"""What every answer has: a request id, and an error that its reader can use."""

import re
import uuid
from collections.abc import Callable

import structlog
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from controlplane.core import problems
from controlplane.core.errors import SlipwayError, Unavailable

log = structlog.get_logger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

type View = Callable[[HttpRequest], HttpResponse]


class RequestId:
    """Takes the proxy's id if it is a sane one, so that one id finds the request in every log."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-Id", "")
        request.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex  # type: ignore[attr-defined]
        with structlog.contextvars.bound_contextvars(request_id=request.request_id):  # type: ignore[attr-defined]
            response = self.get_response(request)
        response["X-Request-Id"] = request.request_id  # type: ignore[attr-defined]
        return response


def database_is_down(error: BaseException) -> bool:
    """A lost or refused connection, a server that is stopping, or a bounded wait that ran out."""
    return isinstance(error, OperationalError | InterfaceError)


def as_problem(error: Exception) -> SlipwayError:
    if database_is_down(error):
        return Unavailable(
            "database_unavailable",
            "The database cannot be reached right now.",
            "Nothing was changed. Try again in a few seconds.",
            retry_after_s=2,
        )
    return problems.translate(error) or SlipwayError(
        "internal_error",
        "Something went wrong on our side.",
        "Nothing was changed. Give the request id to whoever runs Slipway.",
    )


def answer(error: SlipwayError, request: HttpRequest) -> HttpResponse:
    """A problem document for the API, the same sentences as a page for everybody else."""
    if request.path.startswith("/api/") or request.content_type == "application/json":
        return problems.response(error, request)
    page = render(
        request, "errors/error.html", {"problem": problems.document(error, request)}, status=error.status
    )
    for name, value in problems.headers(error).items():
        page[name] = value
    return page


class Problems:
    """Turns whatever a view raised into `answer`. Tracebacks go to the log only."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        try:
            response = self.get_response(request)
        except (OperationalError, InterfaceError) as error:  # raised by a middleware inside us
            return answer(as_problem(error), request)
        if response.status_code in {400, 404, 405} and request.path.startswith("/api/"):
            return self._api_answer(response, request)
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse:
        problem = as_problem(error)
        if problem.status == 500:
            log.exception("request_failed", path=request.path, exc_info=error)
        elif problem.status == 503:
            log.warning("database_unavailable", path=request.path, cause=str(error).splitlines()[0])
        return answer(problem, request)

    def _api_answer(self, response: HttpResponse, request: HttpRequest) -> HttpResponse:
        """Django's own HTML errors (no such URL, bad host) in the API's form."""
        if "json" in response.get("Content-Type", ""):
            return response
        known = {
            400: SlipwayError("bad_request", "The request cannot be understood."),
            404: SlipwayError("not_found", "There is nothing here.", "Check the address; see /api/v1/docs/."),
            405: SlipwayError("method_not_allowed", "This address does not take that method."),
        }[response.status_code]
        known.status = response.status_code
        return problems.response(known, request)
