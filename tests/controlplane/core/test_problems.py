"""Every error becomes a problem document with a stable code, its status and what to do."""

import json

import pytest
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.http import Http404
from django.test import RequestFactory
from rest_framework import exceptions

from controlplane.core import problems
from controlplane.core.errors import Conflict, InvalidInput, SlipwayError, TooMany


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Conflict("job_is_over", "Over."), 409, "job_is_over"),
        (exceptions.ValidationError({"name": ["No."]}), 400, "invalid_input"),
        (exceptions.NotAuthenticated(), 401, "not_authenticated"),
        (exceptions.AuthenticationFailed(), 401, "not_authenticated"),
        (exceptions.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
        (exceptions.UnsupportedMediaType("text/plain"), 415, "unsupported_media_type"),
        (exceptions.NotAcceptable(), 406, "not_acceptable"),
        (exceptions.Throttled(wait=3), 429, "throttled"),
        (exceptions.PermissionDenied(), 403, "forbidden"),
        (PermissionDenied(), 403, "forbidden"),
        (exceptions.NotFound(), 404, "not_found"),
        (Http404("No Model matches the given query."), 404, "not_found"),
        (exceptions.ParseError(), 400, "invalid_body"),
        (RequestDataTooBig("big"), 413, "body_too_large"),
        (SuspiciousOperation("forged"), 400, "bad_request"),
    ],
)
def test_what_a_framework_raises_is_said_in_our_form(error: Exception, status: int, code: str) -> None:
    problem = problems.translate(error)
    assert problem is not None
    assert (problem.status, problem.code) == (status, code)
    assert problem.title


def test_a_missing_object_names_no_table_and_no_query() -> None:
    problem = problems.translate(Http404("No Deployment matches the given query."))
    assert problem is not None
    assert "Deployment" not in problem.title + problem.detail


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RuntimeError()])
def test_a_fault_of_ours_is_not_dressed_up_as_the_readers(error: Exception) -> None:
    assert problems.translate(error) is None


def test_nested_fields_are_named_by_their_path() -> None:
    problem = problems.translate(exceptions.ValidationError({"batching": {"max_batch_size": ["Too large."]}}))
    assert problem is not None
    assert problem.problem()["errors"] == [{"field": "batching.max_batch_size", "messages": ["Too large."]}]


def test_the_document_has_every_member_of_rfc_9457_and_the_request_id() -> None:
    request = RequestFactory().get("/api/v1/models/")
    request.request_id = "abcdefgh"  # type: ignore[attr-defined]
    error = InvalidInput("bad", "Bad.", "Do better.", fields={"name": ["No."]}, extra={"limit": 3})
    answer = problems.response(error, request)
    assert answer["Content-Type"] == "application/problem+json"
    assert json.loads(answer.content) == {
        "type": "/problems/bad/",
        "title": "Bad.",
        "status": 400,
        "detail": "Do better.",
        "code": "bad",
        "errors": [{"field": "name", "messages": ["No."]}],
        "limit": 3,
        "instance": "/api/v1/models/",
        "request_id": "abcdefgh",
    }


@pytest.mark.parametrize(("wait_s", "header"), [(0, "1"), (0.2, "1"), (2, "2"), (60.4, "60")])
def test_waiting_is_said_in_whole_seconds_and_never_zero(wait_s: float, header: str) -> None:
    assert problems.headers(TooMany("x", "x", retry_after_s=wait_s)) == {"Retry-After": header}


def test_only_errors_that_waiting_helps_ask_to_wait() -> None:
    assert problems.headers(SlipwayError("x", "x")) == {}
