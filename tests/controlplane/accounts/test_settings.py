"""Settings and Activity as pages: shown once, confirmed, refused in the form, and for three kinds of people."""

import csv
import io
from typing import Any

import pytest
from django.test import Client

from controlplane.accounts import audit
from controlplane.accounts.access import Actor
from controlplane.accounts.models import ApiToken, AuditEvent, Membership, Role
from tests import factories

pytestmark = pytest.mark.django_db


def browser(actor: Actor) -> Client:
    client = Client()
    assert actor.user is not None
    client.force_login(actor.user)
    return client


@pytest.fixture
def people() -> tuple[Actor, Actor, Actor]:
    """An admin, a viewer of the same team, and the admin of another."""
    team = factories.team()
    return (
        factories.member(team, role=Role.ADMIN),
        factories.member(team, role=Role.VIEWER),
        factories.member(factories.team(), role=Role.ADMIN),
    )


def text(response: Any) -> str:
    return " ".join(response.content.decode().split())


def test_a_token_is_shown_once_with_a_call_that_works(people: Any) -> None:
    client = browser(people[0])
    made = client.post("/settings/tokens/", {"name": "nightly", "role": "engineer", "expires_in_days": "30"})
    assert made.status_code == 201
    assert "no-store" in made["Cache-Control"]
    row = ApiToken.objects.get()
    page = made.content.decode()
    token = page[page.index(row.token_key) :][:64]
    assert f"export SLIPWAY_TOKEN={token}" in page
    assert "curl http://testserver/api/v1/me/" in page
    answer = Client().get("/api/v1/me/", headers={"Authorization": f"Bearer {token}"})
    assert answer.json()["role"] == "engineer"
    assert token not in client.get("/settings/tokens/").content.decode()


def test_a_role_above_ones_own_is_neither_offered_nor_taken(people: Any) -> None:
    client = browser(people[1])
    assert '<option value="admin"' not in text(client.get("/settings/tokens/"))
    refused = client.post("/settings/tokens/", {"name": "x", "role": "admin", "expires_in_days": "30"})
    assert refused.status_code == 403
    assert "Choose your own role or a lower one." in text(refused)
    assert not ApiToken.objects.exists()


def test_a_form_that_is_not_filled_in_says_so_beside_the_field(people: Any) -> None:
    refused = browser(people[0]).post("/settings/tokens/", {"role": "viewer"})
    assert refused.status_code == 400
    assert "fields need another look" in text(refused)


def test_revoking_asks_first_and_works_without_script(people: Any) -> None:
    _, viewer, stranger = people
    factories.token(viewer)
    address = f"/settings/tokens/{ApiToken.objects.get().token_key}/revoke/"
    assert browser(stranger).post(address).status_code == 404
    asked = text(browser(viewer).get(address))
    assert "This cannot be undone." in asked
    assert f"curl -X DELETE http://testserver/api/v1/tokens/{ApiToken.objects.get().token_key}/" in asked
    assert ApiToken.objects.exists()
    assert "1 token, newest first" in text(browser(viewer).get("/settings/tokens/"))
    file = b"".join(browser(viewer).get("/settings/tokens/?part=csv").streaming_content).decode()
    assert file.splitlines()[1].split(",")[1] == ApiToken.objects.get().token_key[:8]
    assert b"".join(browser(stranger).get("/settings/tokens/?part=csv").streaming_content).count(b"\n") == 1
    done = browser(viewer).post(address, follow=True)
    assert "is revoked" in text(done)
    assert not ApiToken.objects.exists()


def test_members_are_seen_by_all_and_managed_by_admins(people: Any) -> None:
    admin, viewer, stranger = people
    managed = text(browser(admin).get("/settings/members/"))
    assert "Add a member" in managed
    assert "curl -X PATCH http://testserver/api/v1/members/" in managed
    asked = text(browser(admin).get(f"/settings/members/{viewer.user}/remove/"))
    assert f"curl -X DELETE http://testserver/api/v1/members/{viewer.user}/" in asked
    seen = text(browser(viewer).get("/settings/members/"))
    assert str(admin.user) in seen
    assert "Add a member" not in seen
    assert str(admin.user) not in text(browser(stranger).get("/settings/members/"))
    refused = browser(viewer).post("/settings/members/", {"username": "ada", "role": "admin"})
    assert refused.status_code == 403
    role = browser(viewer).post(f"/settings/members/{viewer.user}/role/", {"role": "admin"})
    assert role.status_code == 403
    assert (
        browser(stranger).post(f"/settings/members/{viewer.user}/role/", {"role": "admin"}).status_code == 404
    )
    assert browser(stranger).post(f"/settings/members/{viewer.user}/remove/").status_code == 404
    assert Membership.objects.get(user=viewer.user).role == Role.VIEWER


def test_a_new_persons_password_is_shown_once_and_opens_the_product(people: Any) -> None:
    client = browser(people[0])
    made = client.post("/settings/members/", {"username": "ada", "role": "viewer"})
    assert made.status_code == 201
    page = made.content.decode()
    start = page.index('data-copy="', page.index("Copy the password now")) + len('data-copy="')
    password = page[start : page.index('"', start)]
    assert Client().post("/account/login/", {"login": "ada", "password": password}).status_code == 302
    assert password not in client.get("/settings/members/").content.decode()


def test_the_last_admin_stays_and_is_told_why(people: Any) -> None:
    admin, viewer, _ = people
    client = browser(admin)
    refused = client.post(f"/settings/members/{admin.user}/remove/", follow=True)
    assert refused.redirect_chain == [("/settings/members/", 302)]
    assert "A team keeps at least one admin." in text(refused)
    own = client.post(f"/settings/members/{admin.user}/role/", {"role": "viewer"})
    assert own.status_code == 403
    assert "Nobody changes their own role." in text(own)
    changed = client.post(f"/settings/members/{viewer.user}/role/", {"role": "admin"}, follow=True)
    assert f"{viewer.user} is now admin." in text(changed)


def test_a_role_that_does_not_exist_is_refused(people: Any) -> None:
    admin, viewer, _ = people
    refused = browser(admin).post(f"/settings/members/{viewer.user}/role/", {"role": "owner"})
    assert refused.status_code == 400


def test_switching_shows_another_of_ones_own_teams_and_no_other(people: Any) -> None:
    admin, _, stranger = people
    factories.model(stranger.team, "theirs")
    client = browser(admin)
    assert client.post("/settings/team/", {"team": stranger.team.name}).status_code == 404
    Membership.objects.create(team=stranger.team, user=admin.user, role=Role.VIEWER)
    assert client.post("/settings/team/", {"team": stranger.team.name}).status_code == 302
    here = client.get("/api/v1/me/").json()
    assert (here["team"], here["role"]) == (stranger.team.name, "viewer")
    assert client.get("/api/v1/models/theirs/").status_code == 200
    assert AuditEvent.objects.get().verb == "switched to"
    Membership.objects.filter(team=stranger.team, user=admin.user).delete()
    assert client.get("/api/v1/me/").json()["team"] == admin.team.name


def test_other_browsers_are_signed_out_and_nobody_elses(people: Any) -> None:
    admin, viewer, _ = people
    here, elsewhere, other = browser(admin), browser(admin), browser(viewer)
    done = here.post("/settings/sessions/", follow=True)
    assert "Signed out of 1 other browser." in text(done)
    assert elsewhere.get("/api/v1/me/").status_code == 401
    assert here.get("/api/v1/me/").status_code == 200
    assert other.get("/api/v1/me/").status_code == 200


def test_a_person_without_a_team_is_told_what_to_do() -> None:
    client = Client()
    client.force_login(factories.user())
    page = client.get("/")
    assert page.status_code == 404
    assert "You are not a member of any team." in text(page)


def said(actor: Actor, name: str, **details: Any) -> None:
    audit.record(actor, "registered", object_type="model", object_id=1, object_name=name, details=details)


def test_activity_pages_by_key_and_keeps_its_filters(people: Any) -> None:
    admin, viewer, stranger = people
    for number in range(55):
        said(admin, f"model-{number:02}")
    said(viewer, "theirs")
    client = browser(viewer)
    first = text(client.get(f"/activity/?person={admin.user}"))
    assert "model-54" in first
    assert "model-04" not in first
    assert "theirs" not in first
    start = first.index('rel="next" href="') + len('rel="next" href="')
    older = first[start : first.index('"', start)].replace("&amp;", "&")
    second = text(client.get(f"/activity/{older}"))
    assert "model-04" in second
    assert "model-54" not in second
    assert "theirs" not in second
    assert "Nothing has happened yet" in text(browser(stranger).get("/activity/"))
    assert "Nothing matches" in text(client.get("/activity/?text=%25"))


@pytest.mark.parametrize("query", ["person=nobody", "object_type=x", "text=" + "x" * 500, "person=&text="])
def test_a_filter_that_makes_no_sense_still_opens(people: Any, query: str) -> None:
    assert browser(people[0]).get(f"/activity/?{query}").status_code == 200


@pytest.mark.parametrize(
    "query", ["cursor=abc", "cursor=-1", "limit=0", "limit=999999999999999999999", "text=%00"]
)
def test_a_forged_cursor_is_a_page_that_says_so(people: Any, query: str) -> None:
    answer = browser(people[0]).get(f"/activity/?{query}")
    assert answer.status_code == 400
    assert "<h1>" in text(answer)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_the_export_is_the_teams_own_and_runs_no_formula(people: Any, name: str) -> None:
    admin, viewer, stranger = people
    said(admin, name, why="=HYPERLINK()")
    answer = browser(viewer).get("/activity/?part=csv")
    assert answer.streaming
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.getvalue().decode(), newline="")))
    assert [row["object_name"] for row in rows] == ["'" + name]
    assert (rows[0]["person"], rows[0]["verb"], rows[0]["at"][-1]) == (str(admin.user), "registered", "Z")
    assert len(browser(stranger).get("/activity/?part=csv").getvalue().splitlines()) == 1


def test_the_export_takes_the_pages_filters(people: Any) -> None:
    admin, viewer, _ = people
    said(admin, "ours")
    said(viewer, "theirs")
    exported = browser(viewer).get(f"/activity/?part=csv&person={admin.user}").getvalue().decode()
    assert "ours" in exported
    assert "theirs" not in exported


def test_a_form_without_its_token_changes_nothing(people: Any) -> None:
    admin, _, _ = people
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin.user)
    for path in ("/settings/tokens/", "/settings/members/", "/settings/team/", "/settings/sessions/"):
        refused = client.post(path, {"name": "x", "role": "viewer", "expires_in_days": "30"})
        assert refused.status_code == 403
        assert "could not be verified" in text(refused)
    assert not ApiToken.objects.exists()
