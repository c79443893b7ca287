"""What every answer has: a request id, and an error that its reader can use."""

import re
import time
import uuid
from collections.abc import Callable
from typing import Any

import structlog
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render, resolve_url
from django.utils.http import urlencode
from psycopg.errors import ForeignKeyViolation, UniqueViolation

from controlplane.accounts.access import refuse_of_another_team
from controlplane.core import problems
from controlplane.core.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    SlipwayError,
    Unavailable,
    UnsupportedMediaType,
)

log = structlog.get_logger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_CHANGING = ("POST", "PUT", "PATCH", "DELETE")
_PAGE_METHODS = ("GET", "HEAD", "POST", "OPTIONS")

type View = Callable[[HttpRequest], HttpResponse]


class RequestId:
    """Takes the proxy's id if it is a sane one, so that one id finds the request in every log.

    Also notes when the request came: what a page read was true from then on, and its event stream starts there.
    """

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-Id", "")
        request.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex  # type: ignore[attr-defined]
        request.came_at = time.time()  # type: ignore[attr-defined]
        with structlog.contextvars.bound_contextvars(request_id=request.request_id):  # type: ignore[attr-defined]
            response = self.get_response(request)
        response["X-Request-Id"] = request.request_id  # type: ignore[attr-defined]
        return response


def database_is_down(error: BaseException) -> bool:
    """A lost or refused connection, a server that is stopping, or a bounded wait that ran out."""
    return isinstance(error, OperationalError | InterfaceError)


def lost_a_race(error: BaseException) -> bool:
    """What the request needs was removed, or what it makes was made, between a verb's question and its last word.
    Another rule of the database that is broken is a fault of ours."""
    return isinstance(error, IntegrityError) and isinstance(
        error.__cause__, ForeignKeyViolation | UniqueViolation
    )


def as_problem(error: Exception) -> SlipwayError:
    if database_is_down(error):
        return Unavailable(
            "database_unavailable",
            "The database cannot be reached right now.",
            "Nothing was changed. Try again in a few seconds.",
            retry_after_s=2,
        )
    if lost_a_race(error):
        return Conflict(
            "changed_meanwhile",
            "Somebody else changed this at the same moment.",
            "Nothing was changed by this request. Reload, and try again if it is still needed.",
        )
    if isinstance(error, DataError):
        return InvalidInput(
            "unstorable_value",
            "The request has a value that cannot be stored.",
            "Remove control characters and numbers beyond any use.",
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
    _know_the_reader_or_nobody(request)
    page = render(
        request, "errors/error.html", {"problem": problems.document(error, request)}, status=error.status
    )
    for name, value in problems.headers(error).items():
        page[name] = value
    return page


def _know_the_reader_or_nobody(request: HttpRequest) -> None:
    """The page's frame asks who reads it. Where the session cannot be read, an error must not fail over that."""
    try:
        bool(getattr(request, "user", None))
    except (DatabaseError, InterfaceError):
        request.user = AnonymousUser()


def log_failure(error: BaseException, *, status: int, request: HttpRequest) -> None:
    """What the reader is not told. A refusal that is the reader's move is no news."""
    if status == 500 or isinstance(error, DataError | IntegrityError):
        log.error("request_failed", path=request.path, exc_info=error)
    elif status >= 500:
        log.warning("request_postponed", path=request.path, cause=str(error).partition("\n")[0])


def _leads_to_login(response: HttpResponse) -> bool:
    return response.status_code == 302 and response["Location"].startswith(resolve_url(settings.LOGIN_URL))


def _slash_missing(path: str) -> SlipwayError:
    """Instead of Django's redirect, which would turn the request into a GET without its body."""
    return NotFound("slash_missing", "Addresses of the API end with a slash.", f"Send it to {path}/.")


class Problems:
    """Turns whatever a view raised into `answer`. Tracebacks go to the log only.

    What a middleware raises never comes here as an exception: Django has made `ui.errors.server_error` of it.
    """

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        refusal = self._refusal(request)
        response = self.get_response(request) if refusal is None else answer(refusal, request)
        if request.headers.get("HX-Request") and _leads_to_login(response):
            return self._ask_to_log_in(request)
        if response.status_code == 301 and request.method in _CHANGING and request.path.startswith("/api/"):
            return answer(_slash_missing(request.path), request)
        if response.status_code in {400, 404, 405} and not response.get("Content-Type", "").endswith("json"):
            return self._in_our_form(response, request)
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse:
        problem = as_problem(error)
        log_failure(error, status=problem.status, request=request)
        return answer(problem, request)

    def _refusal(self, request: HttpRequest) -> SlipwayError | None:
        """What no view should have to think of: Postgres stores no NUL, pages know few methods, and a body is
        what it seems to be: a kilobyte of gzip can be a gigabyte, and Django reads no body of unknown length."""
        query = request.META.get("QUERY_STRING", "")
        if "\0" in request.path:
            return NotFound("not_found", "There is nothing here.", "No address contains a NUL character.")
        if "%00" in query or "\0" in query:
            return InvalidInput(
                "nul_character", "The address contains a NUL character.", "Remove %00 from it."
            )
        if request.headers.get("Content-Encoding", "").lower() not in {"", "identity"}:
            return UnsupportedMediaType(
                "encoded_body",
                "Encoded bodies are not read.",
                "Send the body as it is, without Content-Encoding.",
            )
        chunked = "Transfer-Encoding" in request.headers
        if chunked and request.content_type != "application/octet-stream":
            return problems.LengthRequired(
                "length_required",
                "The length of this body was not announced.",
                "Send Content-Length. Only raw uploads may come in chunks, with X-Content-SHA256.",
            )
        if not request.path.startswith("/api/") and request.method not in _PAGE_METHODS:
            return problems.method_not_allowed()
        return None

    def _ask_to_log_in(self, request: HttpRequest) -> HttpResponse:
        """A fragment cannot be a login page: the browser is sent there and comes back to where it was."""
        here = getattr(request, "htmx", None) and request.htmx.current_url_abs_path  # type: ignore[attr-defined]
        address = f"{resolve_url(settings.LOGIN_URL)}?{urlencode({'next': here or '/'})}"
        return HttpResponse(status=401, headers={"HX-Redirect": address})

    def _in_our_form(self, response: HttpResponse, request: HttpRequest) -> HttpResponse:
        """Django's own HTML errors (no such URL, bad host, wrong method) as everybody gets them."""
        api = request.path.startswith("/api/")
        if not api and response.status_code != 405:
            return response
        found = answer(
            {
                400: problems.bad_request(),
                404: NotFound("not_found", "There is nothing here.", "Check the address; see /api/v1/docs/."),
                405: problems.method_not_allowed(),
            }[response.status_code],
            request,
        )
        if "Allow" in response:
            found["Allow"] = response["Allow"]
        return found


class FormsOfTheirTeam:
    """A form acts in the team that it was shown for, or not at all; see `refuse_of_another_team`.

    Addresses without a namespace are allauth's, and of the person. What is exempt from Django's CSRF check has one of
    its own, and its form is unread until then.
    """

    of_any_team = frozenset({"accounts:switch-team"})

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: View, args: Any, kwargs: Any) -> HttpResponse | None:
        match = request.resolver_match
        if match is None or not match.namespace or match.view_name in self.of_any_team:
            return None
        if getattr(view, "csrf_exempt", False):
            return None
        try:
            refuse_of_another_team(request)
        except SlipwayError as error:
            return answer(error, request)
        return None
