"""Logging in, and what ends a session."""

from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import (
    SECRET_SESSION_KEY,
    format_hotp_value,
    hotp_value,
    yield_hotp_counters_from_time,
)
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from controlplane.accounts.access import Actor
from controlplane.accounts.models import AuditEvent, Membership, Role
from tests import factories

pytestmark = pytest.mark.django_db

PASSWORD = "a long pass phrase"
LOGIN = "/account/login/"


@pytest.fixture(autouse=True)
def _no_attempts_yet() -> None:
    cache.clear()


@pytest.fixture
def actor() -> Actor:
    return factories.member(factories.team())


def log_in(username: str, password: str = PASSWORD, client: Client | None = None) -> int:
    answer = (client or Client()).post(LOGIN, {"login": username, "password": password})
    return answer.status_code


def test_the_right_password_opens_the_product(actor: Actor) -> None:
    client = Client()
    assert log_in(str(actor.user), client=client) == 302
    assert client.get("/api/v1/me/").status_code == 200


@pytest.mark.parametrize("username", ["known", "nobody-of-that-name"])
def test_guessing_is_refused_with_429_whether_or_not_the_person_exists(username: str) -> None:
    factories.user("known")
    statuses = [log_in(username, "wrong") for _ in range(12)]
    assert statuses[0] == 200
    assert statuses[-1] == 429
    answer = Client().post(LOGIN, {"login": username, "password": "wrong"})
    assert int(answer["Retry-After"]) > 0
    assert "Too many failed attempts" in answer.content.decode()


def test_a_locked_name_stays_locked_for_the_right_password_too(actor: Actor) -> None:
    for _ in range(6):
        log_in(str(actor.user), "wrong")
    assert log_in(str(actor.user)) == 429


def test_an_unknown_person_gets_the_same_answer_as_a_wrong_password(actor: Actor) -> None:
    def said(username: str) -> str:
        page = Client().post(LOGIN, {"login": username, "password": "wrong"}).content.decode()
        return page[page.index('role="alert"') :].partition("</form>")[0].replace(username, "NAME")

    assert "not correct" in said(str(actor.user))
    assert said(str(actor.user)).partition("csrf")[0] == said("nobody").partition("csrf")[0]


NEED_MAIL = [
    "/account/signup/",
    "/account/email/",
    "/account/confirm-email/",
    "/account/confirm-email/abc/",
    "/account/password/set/",
    "/account/password/reset/",
    "/account/password/reset/done/",
    "/account/password/reset/key/1-abc/",
    "/account/login/code/confirm/",
    "/account/2fa/webauthn/",
    "/account/",
]


@pytest.mark.parametrize("path", NEED_MAIL)
def test_there_is_no_page_that_would_send_a_mail(actor: Actor, path: str) -> None:
    person = Client()
    assert actor.user is not None
    person.force_login(actor.user)
    form = {"email": "a@example.com", "username": "mallory", "password1": "pass phrase 123", "action_add": ""}
    for client in (Client(), person):
        assert client.get(path).status_code == 404
        assert client.post(path, form).status_code == 404


def test_the_pages_of_an_account_lead_nowhere_else(actor: Actor) -> None:
    """Each is made without the addresses that are left out."""
    person = Client()
    assert Client().get(LOGIN).status_code == 200
    assert Client().get("/account/inactive/").status_code == 200
    log_in(str(actor.user), client=person)
    for path in ("password/change/", "reauthenticate/", "2fa/", "2fa/totp/activate/", "logout/"):
        page = person.get(f"/account/{path}", follow=True)
        assert page.status_code == 200, path
        assert "password/reset" not in page.content.decode(), path


@pytest.mark.parametrize(
    "wanted", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)"]
)
def test_a_login_leads_to_no_other_site(actor: Actor, wanted: str) -> None:
    page = Client().get(LOGIN, {"next": wanted})
    assert f'href="{wanted}' not in page.content.decode()
    answer = Client().post(LOGIN, {"login": str(actor.user), "password": PASSWORD, "next": wanted})
    assert (answer.status_code, answer["Location"]) == (302, reverse("ui:overview"))


def test_a_disabled_person_cannot_log_in_and_a_session_of_theirs_ends(actor: Actor) -> None:
    client = Client()
    log_in(str(actor.user), client=client)
    assert actor.user is not None
    actor.user.is_active = False
    actor.user.save()
    assert client.get("/api/v1/me/").status_code == 401
    assert client.get(reverse("accounts:settings")).status_code == 302
    again = Client().post(LOGIN, {"login": str(actor.user), "password": PASSWORD}, follow=True)
    assert again.status_code == 200
    assert "inactive" in again.content.decode().lower()


def test_a_new_password_ends_every_other_session(actor: Actor) -> None:
    here, elsewhere = Client(), Client()
    for client in (here, elsewhere):
        log_in(str(actor.user), client=client)
    answer = here.post(
        "/account/password/change/",
        {"oldpassword": PASSWORD, "password1": "another pass phrase", "password2": "another pass phrase"},
    )
    assert answer.status_code == 302
    assert elsewhere.get("/api/v1/me/").status_code == 401


def test_what_a_person_changes_on_their_account_stands_in_the_trail_of_each_of_their_teams(
    actor: Actor, django_capture_on_commit_callbacks: Any
) -> None:
    assert actor.user is not None
    Membership.objects.create(team=factories.team(), user=actor.user, role=Role.VIEWER)
    client = Client()
    log_in(str(actor.user), client=client)
    client.post("/account/reauthenticate/", {"password": PASSWORD})
    client.get("/account/2fa/totp/activate/")
    (counter, *_) = yield_hotp_counters_from_time()
    code = format_hotp_value(hotp_value(client.session[SECRET_SESSION_KEY], counter))
    with django_capture_on_commit_callbacks(execute=True):
        assert client.post("/account/2fa/totp/activate/", {"code": code}).status_code == 302
        client.post("/account/2fa/recovery-codes/generate/")
    client.post("/account/2fa/totp/deactivate/")
    form = {"oldpassword": PASSWORD, "password1": "another pass phrase", "password2": "another pass phrase"}
    client.post("/account/password/change/", form)
    for membership in Membership.objects.filter(user=actor.user):
        rows = AuditEvent.objects.filter(team=membership.team).order_by("id")
        assert {(row.user, row.via, row.object_name) for row in rows} == {
            (actor.user, "page", actor.user.username)
        }
        assert [row.verb for row in rows] == [
            "turned on two-factor login of",
            "made new recovery codes of",
            "turned off two-factor login of",
            "changed the password of",
        ]


def test_logging_out_ends_the_session_on_the_server(actor: Actor) -> None:
    client, copy = Client(), Client()
    log_in(str(actor.user), client=client)
    copy.cookies.update(client.cookies)
    assert copy.get("/api/v1/me/").status_code == 200
    client.post("/account/logout/")
    assert copy.get("/api/v1/me/").status_code == 401


@pytest.mark.parametrize("value", ["x", "x" * 5000, '"aaaaaaaaaaaa\\000"', "é" * 20, "' OR 1=1--"])
def test_a_forged_session_cookie_is_nobody(value: str) -> None:
    client = Client(raise_request_exception=False)
    answer = client.get("/api/v1/me/", headers={"Cookie": f"sessionid={value}"})
    assert answer.status_code in {400, 401}
