"""What HTTP lets people try: methods, hosts, headers."""

from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from tests.api.answers import complaints, nothing_written
from tests.api.routes import METHODS, ROOT, Operation, mutations, operations, routes
from tests.api.world import World

EVERY_METHOD = (*METHODS, "TRACE", "CONNECT", "PROPFIND", "MKCOL", "LOCK", "SEARCH", "PURGE", "FOO")


def test_a_method_that_an_address_does_not_take_is_refused_with_those_it_takes(world: World) -> None:
    with complaints() as wrong, nothing_written(wrong, "other methods"):
        for route in routes():
            for method in set(EVERY_METHOD) - set(route.methods):
                response = world.admin.ask(method, world.path(route), b"{}")
                wrong.check(f"{method} {route.template}", response, statuses={405})
                allowed = {one.strip() for one in response.headers.get("Allow", "").split(",")}
                if not set(route.methods) <= allowed:
                    wrong.say(f"{method} {route.template}", f"allows {sorted(allowed)}")


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_header_never_overrides_the_method(world: World, header: str) -> None:
    with complaints() as wrong, nothing_written(wrong, header):
        for route in routes():
            if "DELETE" in route.methods and "POST" not in route.methods:
                response = world.admin.ask("POST", world.path(route), b"{}", headers={header: "DELETE"})
                wrong.check(route.template, response, statuses={405})
            if "GET" in route.methods:
                response = world.admin.ask("GET", world.path(route), headers={header: "DELETE"})
                wrong.check(route.template, response, statuses={200, 204})


def test_a_field_never_overrides_the_method(world: World) -> None:
    with complaints() as wrong, nothing_written(wrong, "_method"):
        response = world.admin.ask("POST", f"{ROOT}models/churn/", {"_method": "DELETE"})
        wrong.check("_method", response, statuses={405})


def test_head_is_get_without_a_body(world: World) -> None:
    with complaints() as wrong:
        for route in routes():
            if "GET" in route.methods:
                response = world.viewer.ask("HEAD", world.path(route, token_key="absent"))
                expected = {404} if "token_key" in dict(route.parameters) else {200, 204}
                if response.status_code not in expected:
                    wrong.say(route.template, str(response.status_code))


def test_options_tells_the_methods_and_nothing_of_the_object(world: World) -> None:
    with complaints() as wrong, nothing_written(wrong, "options"):
        for route in routes():
            theirs = world.stranger.ask("OPTIONS", world.path(route))
            wrong.check(route.template, theirs, statuses={200})


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "a b",
        "",
        "127.0.0.1:80:80",
        "[::1",
        "@",
        "\u0445.example",
        "." * 300,
    ],
)
def test_a_forged_host_is_a_bad_request(world: World, host: str) -> None:
    with complaints() as wrong, nothing_written(wrong, host):
        for operation in operations():
            good = world.good(operation)
            response = world.admin.ask(operation.method, world.path(operation), **good, HTTP_HOST=host)
            wrong.check(operation, response, statuses={400})


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Host": "evil.example"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-For": "1.2.3.4, evil"},
        {"X-Forwarded-Port": "99"},
        {"Forwarded": "host=evil.example;proto=https"},
        {"X-Original-URL": "/api/v1/tokens/"},
        {"X-Rewrite-URL": "/api/v1/tokens/"},
        {"X-Remote-User": "ada"},
        {"Remote-User": "ada"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_what_a_proxy_would_say_is_not_believed_of_a_client(world: World, headers: dict[str, str]) -> None:
    document = world.viewer.ask("GET", f"{ROOT}models/", headers=headers, QUERY_STRING="limit=1").json()
    assert document["next"].startswith("http://testserver/api/v1/models/?")
    assert Client().get(f"{ROOT}me/", headers=headers).status_code == 401
    assert world.viewer.ask("GET", f"{ROOT}me/", headers=headers).json()["username"] == "vic"


ODD = [
    "\0",
    "\x7f",
    "\u00e9",
    "\xff" * 100,
    "a" * 50_000,
    "'--",
    "%00",
    "{{7*7}}",
    "${jndi:ldap://x}",
    "<script>",
    "\t",
]


READ = [
    "Accept", "Cookie", "If-Match", "If-None-Match", "If-Modified-Since", "Range", "Idempotency-Key",
    "X-Content-SHA256", "X-Request-Id", "Content-Length", "X-Envoy-External-Address",
]  # fmt: skip
UNREAD = [
    "Accept-Language", "Accept-Encoding", "X-Requested-With", "HX-Request", "HX-Current-URL", "HX-Target",
    "User-Agent", "Referer", "Origin", "X-CSRFToken", "Expect", "Upgrade", "Connection", "TE",
]  # fmt: skip
"""By the API; so they come together, as none keeps another from being looked at."""


@pytest.mark.parametrize("names", [*([name] for name in READ), UNREAD], ids=lambda names: names[0])
def test_no_header_breaks_an_answer(world: World, names: list[str]) -> None:
    """On one address of each kind: read, list, JSON, raw bytes."""
    chosen = [one for one in operations() if one.key in _KINDS]
    assert len(chosen) == len(_KINDS)
    with complaints() as wrong:
        for operation in chosen:
            for value in ODD:
                good = world.good(operation)
                headers = dict(good.get("headers", {})) | dict.fromkeys(names, value)
                with transaction.atomic():
                    response = world.admin.ask(
                        operation.method, world.path(operation), **good | {"headers": headers}
                    )
                    wrong.check(f"{operation} {names[0]}: {value[:20]!r}", response)
                    transaction.set_rollback(True)
                if any(ord(character) < 32 for text in response.headers.values() for character in text):
                    wrong.say(operation, "sends a control character back in a header")


_KINDS = {
    ("GET", "model"),
    ("GET", "jobs"),
    ("POST", "jobs"),
    ("POST", "rollouts"),
    ("GET", "variant-content"),
}


@pytest.mark.parametrize(
    "accept", ["text/html", "application/xml", "image/*", "application/problem+json", "x", "*/"]
)
def test_an_answer_in_another_format_is_not_to_be_had(world: World, accept: str) -> None:
    with complaints() as wrong, nothing_written(wrong, accept):
        for operation in operations():
            if any(kind.startswith(accept) for kind in _offered(operation)):
                continue
            response = world.admin.ask(
                operation.method,
                world.path(operation),
                **world.good(operation) | {"headers": {"Accept": accept}},
            )
            wrong.check(operation, response, statuses={406})


def _offered(operation: Operation) -> list[str]:
    """The kinds of a good answer."""
    good = (answer for status, answer in operation.document["responses"].items() if status < "3")
    return [kind for answer in good for kind in answer.get("content", ())]


@pytest.mark.parametrize(
    "name", ["", "Bearer", "Bearer ", "Bearer a b", "bearer", "Basic YTpi", "Token x", "\0"]
)
def test_credentials_that_are_none_are_refused_on_every_address(world: World, name: str) -> None:
    with complaints() as wrong, nothing_written(wrong, name):
        for operation in operations():
            response: Any = world.admin.ask(
                operation.method, world.path(operation), headers={"Authorization": name}
            )
            wrong.check(operation, response, statuses={401})


def test_a_session_changes_nothing_without_its_csrf_token(world: World) -> None:
    """The cookie alone is what another site's form would send."""
    browser = Client(enforce_csrf_checks=True, raise_request_exception=False)
    assert world.admin.actor.user is not None
    browser.force_login(world.admin.actor.user)
    with complaints() as wrong, nothing_written(wrong, "no CSRF token"):
        for operation in mutations():
            for content_type in ("application/json", "text/plain"):
                path = world.path(operation)
                response = browser.generic(operation.method, path, b"{}", content_type)
                wrong.check(operation, response, statuses={403})
