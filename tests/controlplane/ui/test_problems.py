"""What a request that cannot be answered gets: a problem document or a page with the same sentence, never a 5xx."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.urls import get_resolver

from controlplane.accounts.access import Actor
from controlplane.accounts.models import Team
from controlplane.registry.models import Model
from tests import factories

pytestmark = pytest.mark.django_db

CREATE = "/api/v1/models/"


@pytest.fixture
def actor() -> Actor:
    return factories.member(factories.team())


@pytest.fixture
def token(actor: Actor) -> str:
    return factories.token(actor)


@pytest.fixture
def browser(actor: Actor) -> Client:
    client = Client(raise_request_exception=False)
    assert actor.user is not None
    client.force_login(actor.user)
    return client


def send(
    token: str,
    body: bytes,
    *,
    path: str = CREATE,
    method: str = "POST",
    content_type: str = "application/json",
) -> Any:
    client = Client(raise_request_exception=False)
    headers = {"Authorization": f"Bearer {token}"}
    return client.generic(method, path, body, content_type=content_type, headers=headers)


def is_problem(response: Any, status: int) -> dict[str, Any]:
    """A document of RFC 9457 with everything a reader needs and nothing of ours."""
    assert response.status_code == status, response.content[:500]
    assert response["Content-Type"] == "application/problem+json"
    document: dict[str, Any] = json.loads(response.content)
    assert document["status"] == status
    assert document["code"]
    assert document["title"]
    assert document["request_id"] == response["X-Request-Id"]
    assert "Traceback" not in response.content.decode()
    return document


HOSTILE = {
    "truncated": (b'{"name": "a', 400),
    "trailing comma": (b'{"name": "a",}', 400),
    "BOM": (b'\xef\xbb\xbf{"name": "a"}', 400),
    "UTF-16": ('{"name": "a"}'.encode("utf-16"), 400),
    "100,000 arrays": (b"[" * 100_000, 400),
    "100,000 objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
    "deep in a field": (b'{"name": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", 400),
    "NaN": (b'{"name": NaN}', 400),
    "Infinity": (b'{"name": -Infinity}', 400),
    "too large a float": (b'{"name": 1e400}', 400),
    "a 5,000-digit integer": (b'{"name": ' + b"7" * 5_000 + b"}", 400),
    "NUL in a value": (b'{"name": "a\\u0000b"}', 400),
    "NUL in a key": (b'{"na\\u0000me": "ab"}', 400),
    "raw NUL": (b'{"name": "a\x00b"}', 400),
    "lone surrogate": (b'{"name": "\\ud800"}', 400),
    "surrogate key": (b'{"\\udc00": "ab"}', 400),
    "list for object": (b'[{"name": "ab"}]', 400),
    "text for object": (b'"name"', 400),
    "number for object": (b"1", 400),
    "null for object": (b"null", 400),
    "true for object": (b"true", 400),
    "number for text": (b'{"name": 12}', 400),
    "bool for text": (b'{"name": true}', 400),
    "object for text": (b'{"name": {"$ne": null}}', 400),
    "unknown field": (b'{"name": "ab", "is_admin": true}', 400),
    "somebody else's field": (b'{"name": "ab", "team": 1, "id": 7}', 400),
    "too much": (b'{"name": "' + b"a" * 3 * 1024**2 + b'"}', 413),
    "empty": (b"", 400),
}


@pytest.mark.parametrize(("body", "status"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_body_that_cannot_be_meant_makes_nothing(token: str, body: bytes, status: int) -> None:
    is_problem(send(token, body), status)
    assert not Model.objects.exists()


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "",
        "nonsense",
        "text/json",
        "application/json-patch+json",
    ],
)
def test_only_json_is_read_as_json(token: str, content_type: str) -> None:
    is_problem(send(token, b'{"name": "ab"}', content_type=content_type), 415)
    assert not Model.objects.exists()


def test_a_body_in_another_charset_is_refused_and_not_guessed_at(token: str) -> None:
    answer = send(token, '{"name": "ab"}'.encode("utf-16"), content_type="application/json; charset=utf-16")
    is_problem(answer, 415)
    plain = send(token, b'{"name": "ab"}', content_type="application/json; charset=utf-8")
    assert plain.status_code == 201


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/jobs/٣/",
        "/api/v1/jobs/0/",
        "/api/v1/jobs/-1/",
        "/api/v1/jobs/9223372036854775808/",
        "/api/v1/jobs/" + "9" * 5000 + "/",
        "/api/v1/jobs/1000000000000000000000000000000/",
        "/api/v1/jobs/6f1d8a9e-0000-4000-8000-000000000000/",
        "/api/v1/jobs/1e3/",
        "/api/v1/models/..%2f..%2fetc/",
        "/api/v1/models/%2e%2e/",
        "/api/v1/models/Fraud/",
        "/api/v1/models/a%00b/",
        "/api/v1/models/аdmin/",
        "/api/v1/models/none/versions/٣/",
        "/api/v1/nothing/",
        "/api/v1/",
        "/jobs/٣/",
        "/jobs/9223372036854775808/",
        "/models/none/versions/1/",
        "/nothing/",
        "/%ff%fe/",
    ],
)
def test_an_address_of_nothing_is_not_found_in_the_readers_form(
    browser: Client, token: str, path: str
) -> None:
    if path.startswith("/api/"):
        is_problem(send(token, b"", path=path, method="GET"), 404)
    else:
        page = browser.get(path)
        assert page.status_code == 404
        assert "There is nothing here." in page.content.decode()


@pytest.mark.parametrize("path", ["/", "/account/login/", "/api/v1/models/", "/healthz"])
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil", "a b", "", "[::1", "‮"]
)
def test_a_forged_host_is_refused(browser: Client, path: str, host: str) -> None:
    answer = browser.get(path, headers={"Host": host.encode().decode("latin-1")})
    assert answer.status_code == 400
    assert "evil" not in answer.content.decode()


@pytest.mark.parametrize("header", ["X-Forwarded-Host", "X-Original-URL", "X-Rewrite-URL", "Forwarded"])
def test_a_forwarded_name_is_not_believed(browser: Client, header: str) -> None:
    page = browser.get("/settings/tokens/", headers={header: "evil.example"})
    assert page.status_code == 200
    assert "evil.example" not in page.content.decode()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/api/v1/models/"),
        ("PATCH", "/api/v1/models/"),
        ("DELETE", "/api/v1/models/"),
        ("TRACE", "/api/v1/models/"),
        ("CONNECT", "/api/v1/models/"),
        ("POST", "/api/v1/me/"),
        ("BREW", "/api/v1/me/"),
    ],
)
def test_a_method_that_an_address_does_not_take_is_named_with_those_it_takes(
    token: str, method: str, path: str
) -> None:
    answer = send(token, b"{}", path=path, method=method)
    is_problem(answer, 405)
    assert "GET" in answer["Allow"]


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_method_cannot_be_smuggled_in_a_header(actor: Actor, token: str, header: str) -> None:
    factories.model(actor.team, "kept")
    headers = {"Authorization": f"Bearer {token}", header: "DELETE"}
    answer = Client().post("/api/v1/models/kept/", b"{}", content_type="application/json", headers=headers)
    is_problem(answer, 405)
    assert Model.objects.filter(name="kept").exists()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("TRACE", "/"),
        ("PUT", "/settings/"),
        ("DELETE", "/activity/"),
        ("POST", "/activity/"),
        ("GET", "/settings/team/"),
        ("CONNECT", "/account/login/"),
    ],
)
def test_a_page_asked_in_another_way_keeps_its_layout(browser: Client, method: str, path: str) -> None:
    answer = browser.generic(method, path)
    assert answer.status_code == 405
    assert "does not take that method" in answer.content.decode()


@pytest.mark.parametrize("query", ["%00", "q=%00", "q=a%00b", "%00=1"])
@pytest.mark.parametrize("path", ["/search/", "/models/", "/api/v1/models/", "/account/login/"])
def test_a_nul_in_the_address_is_a_bad_request(browser: Client, path: str, query: str) -> None:
    assert browser.get(f"{path}?{query}").status_code == 400


@pytest.mark.parametrize("text", ["\ud800", "é", "‮", "\x1b[31m", "a" * 5000, "' OR 1=1--", "%", "\\"])
def test_a_search_takes_any_text(browser: Client, text: str) -> None:
    from urllib.parse import quote

    asked = quote(text, errors="surrogatepass")
    assert browser.get(f"/search/?q={asked}").status_code == 200
    assert browser.get(f"/api/v1/models/?search={asked}").status_code == 200


@pytest.mark.parametrize(
    "name", ["X-Request-Id", "Referer", "User-Agent", "Accept-Language", "HX-Current-URL"]
)
@pytest.mark.parametrize("value", ["\x00", "\xff\xfe", "a" * 50_000, "\x1b[31m", "' OR 1=1--"])
def test_a_header_of_nonsense_disturbs_nothing(browser: Client, name: str, value: str) -> None:
    answer = browser.get("/settings/", headers={name: value})
    assert answer.status_code == 200
    assert value not in answer["X-Request-Id"]


def test_a_sane_request_id_is_kept_so_that_it_finds_the_request_in_every_log(browser: Client) -> None:
    answer = browser.get("/settings/", headers={"X-Request-Id": "trace-12345678"})
    assert answer["X-Request-Id"] == "trace-12345678"


def test_a_cookie_call_without_its_csrf_token_changes_nothing(actor: Actor) -> None:
    client = Client(enforce_csrf_checks=True)
    assert actor.user is not None
    client.force_login(actor.user)
    for content_type, status in (("application/json", 403), ("text/plain", 403)):
        answer = client.post(CREATE, b'{"name": "ab"}', content_type=content_type)
        is_problem(answer, status)
    crossing = client.post(
        CREATE,
        b'{"name": "ab"}',
        content_type="application/json",
        headers={"Origin": "https://evil.example", "X-CSRFToken": "forged"},
    )
    is_problem(crossing, 403)
    assert not Model.objects.exists()


def test_the_login_form_is_protected_too() -> None:
    answer = Client(enforce_csrf_checks=True).post("/account/login/", {"login": "a", "password": "b"})
    assert answer.status_code == 403
    assert "could not be verified" in answer.content.decode()


def plain_pages() -> Iterator[str]:
    """Every page of ours that takes no argument."""
    for pattern in get_resolver().url_patterns:
        for entry in getattr(pattern, "url_patterns", []):
            route = f"{pattern.pattern}{entry.pattern}"
            if "<" not in route and not route.startswith(("api/", "account/")) and "(" not in route:
                yield f"/{route}"


def test_every_page_has_a_strict_policy_and_no_inline_code(browser: Client) -> None:
    pages = [
        *plain_pages(),
        "/account/login/",
        "/account/password/change/",
        "/nothing/",
        "/activity/?cursor=x",
    ]
    assert len(pages) > 12
    for path in pages:
        answer = browser.get(path)
        assert answer.status_code < 500, path
        policy = answer["Content-Security-Policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert answer["X-Content-Type-Options"] == "nosniff"
        if answer["Content-Type"].startswith("text/html") and not answer.streaming:
            page = answer.content.decode()
            assert " style=" not in page, path
            assert " onclick=" not in page, path
            assert "<style" not in page, path


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ValueError("secret-of-the-house")

    monkeypatch.setattr("controlplane.registry.selectors.models", broken)
    monkeypatch.setattr("controlplane.accounts.selectors.activity", broken)


@pytest.mark.usefixtures("fault")
def test_a_fault_of_ours_says_so_and_no_more(browser: Client, token: str) -> None:
    document = is_problem(send(token, b"", method="GET"), 500)
    assert document["code"] == "internal_error"
    page = browser.get("/activity/")
    assert page.status_code == 500
    for answer in (json.dumps(document), page.content.decode()):
        assert "secret-of-the-house" not in answer
        assert "ValueError" not in answer
    assert page["X-Request-Id"] in page.content.decode()


def test_who_comes_second_is_told_so_and_a_broken_rule_of_ours_is_a_fault(
    browser: Client, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = factories.team()

    def write(**values: Any) -> None:
        with transaction.atomic():
            Team.objects.create(**values)

    def broken(*args: Any, **kwargs: Any) -> None:
        write(**values)

    monkeypatch.setattr("controlplane.registry.selectors.models", broken)
    values: dict[str, Any] = {"name": taken.name}
    assert is_problem(send(token, b"", method="GET"), 409)["code"] == "changed_meanwhile"
    page = browser.get("/models/")
    assert page.status_code == 409
    assert "Somebody else changed this" in page.content.decode()
    values = {"name": None}
    is_problem(send(token, b"", method="GET"), 500)


def test_a_session_key_that_no_database_can_hold_is_a_bad_request() -> None:
    client = Client(raise_request_exception=False)
    answer = client.get("/", headers={"Cookie": 'sessionid="aaaaaaaaaaaa\\000"'})
    assert answer.status_code in {302, 400}


class TestDatabaseDown:
    """Every connection of this process is refused, as when Postgres is restarted."""

    @pytest.fixture(autouse=True)
    def _down(self, transactional_db: None) -> Iterator[None]:
        settings = connection.settings_dict
        right = settings["HOST"], settings["PORT"]
        settings["HOST"], settings["PORT"] = "127.0.0.1", "1"
        connection.close()
        yield
        settings["HOST"], settings["PORT"] = right
        connection.close()

    @pytest.mark.parametrize("path", ["/api/v1/models/", "/api/v1/me/", "/api/v1/activity/"])
    def test_the_api_says_503_and_when_to_come_back(self, path: str) -> None:
        answer = send("0" * 64, b"", path=path, method="GET")
        document = is_problem(answer, 503)
        assert document["code"] == "database_unavailable"
        assert int(answer["Retry-After"]) > 0

    def test_a_verb_says_503_too(self) -> None:
        is_problem(send("0" * 64, b'{"name": "ab"}'), 503)

    @pytest.mark.parametrize("path", ["/", "/models/", "/activity/", "/settings/tokens/", "/nothing/at/all/"])
    def test_a_page_says_503_with_its_layout(self, path: str) -> None:
        client = Client(raise_request_exception=False)
        answer = client.get(path, headers={"Cookie": "sessionid=" + "a" * 32})
        if path == "/nothing/at/all/":
            assert answer.status_code in {404, 503}
            return
        assert answer.status_code == 503
        assert int(answer["Retry-After"]) > 0
        page = answer.content.decode()
        assert "The database cannot be reached right now." in page
        assert "Overview" in page
        assert "Content-Security-Policy" in answer

    def test_logging_in_says_503(self) -> None:
        client = Client(raise_request_exception=False)
        assert client.post("/account/login/", {"login": "a", "password": "b"}).status_code == 503

    def test_the_process_is_alive_and_not_ready(self) -> None:
        alive = Client().get("/healthz")
        assert (alive.status_code, alive.json()) == (200, {"status": "degraded", "database": "unreachable"})
        ready = Client(raise_request_exception=False).get("/readyz")
        assert ready.status_code == 503
        assert int(ready["Retry-After"]) > 0


def test_the_process_is_well_while_the_database_answers() -> None:
    for path in ("/healthz", "/readyz"):
        answer = Client().get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok", "database": "ok"})
        assert "no-store" in answer["Cache-Control"]


def test_only_what_is_read_can_be_tried_again(browser: Client) -> None:
    """An address that takes only POST answers a link with 405."""
    assert "Try again" in browser.get("/models/no-such-model/").content.decode()
    assert "Try again" not in browser.post("/jobs/1/cancel/").content.decode()
