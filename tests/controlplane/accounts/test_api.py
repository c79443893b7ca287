"""Tokens, members and activity over the API: each verb by an admin, a viewer of the team and a stranger."""

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from controlplane.accounts import dispatch, services
from controlplane.accounts.access import Actor
from controlplane.accounts.models import ApiToken, AuditEvent, Membership, Role
from controlplane.core.errors import NotFound
from tests import factories

pytestmark = pytest.mark.django_db


@dataclass(frozen=True, kw_only=True)
class Caller:
    """An actor who calls with a token."""

    actor: Actor
    token: str

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        return Client().generic(
            method,
            f"/api/v1/{path}",
            b"" if body is None else json.dumps(body),
            content_type="application/json",
            headers={"Authorization": f"Bearer {self.token}"},
        )


def caller(actor: Actor) -> Caller:
    return Caller(actor=actor, token=factories.token(actor))


@pytest.fixture
def people() -> tuple[Caller, Caller, Caller]:
    """An admin, a viewer of the same team, and the admin of another."""
    team = factories.team()
    return (
        caller(factories.member(team, role=Role.ADMIN)),
        caller(factories.member(team, role=Role.VIEWER)),
        caller(factories.member(factories.team(), role=Role.ADMIN)),
    )


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json().get("code", "")


def test_a_created_token_is_shown_once_and_works_at_once(people: Any) -> None:
    admin, _, _ = people
    made = admin("POST", "tokens/", {"name": "nightly", "role": "engineer", "expires_in_days": 30})
    assert made.status_code == 201
    assert "no-store" in made["Cache-Control"]
    document = made.json()
    token = document["token"]
    again = Caller(actor=admin.actor, token=token)
    assert again("GET", "me/").json()["role"] == "engineer"
    listed = admin("GET", "tokens/").content.decode()
    assert document["token_key"] in listed
    assert token not in listed
    assert token not in admin("GET", "activity/").content.decode()


def test_a_token_wider_than_its_maker_is_refused(people: Any) -> None:
    _, viewer, _ = people
    for role in ("engineer", "admin"):
        assert code(viewer("POST", "tokens/", {"name": "x", "role": role})) == (403, "role_above_own")
    assert viewer("POST", "tokens/", {"name": "x", "role": "viewer"}).status_code == 201


def test_a_token_makes_no_token_wider_than_itself(people: Any) -> None:
    admin, _, _ = people
    narrow = admin("POST", "tokens/", {"name": "narrow", "role": "viewer"}).json()["token"]
    answer = Caller(actor=admin.actor, token=narrow)("POST", "tokens/", {"name": "x", "role": "admin"})
    assert code(answer) == (403, "role_above_own")


def narrow(admin: Caller, *, role: str = "viewer", days: int = 1) -> Caller:
    """A token of the admin's that may do less than the admin."""
    made = admin("POST", "tokens/", {"name": "narrow", "role": role, "expires_in_days": days})
    return Caller(actor=admin.actor, token=made.json()["token"])


def test_a_token_makes_none_that_outlives_it(people: Any) -> None:
    admin, _, _ = people
    reader = narrow(admin)
    own = reader("GET", "tokens/").json()["items"][0]["expires_at"]
    made = reader("POST", "tokens/", {"name": "longer", "role": "viewer", "expires_in_days": 365})
    assert made.status_code == 201
    assert made.json()["expires_at"][:19] <= own[:19]


def test_a_token_revokes_itself_and_what_may_do_no_more_than_it(people: Any) -> None:
    admin, _, _ = people
    reader, other, writer = narrow(admin), narrow(admin), narrow(admin, role="engineer")
    keys = {row.role: row.token_key for row in ApiToken.objects.filter(user=admin.actor.user)}
    for role in ("admin", "engineer"):
        assert code(reader("DELETE", f"tokens/{keys[role]}/")) == (403, "role_too_low")
    assert reader("DELETE", f"tokens/{other.token[:15]}/").status_code == 204
    assert other("GET", "me/").status_code == 401
    assert reader("DELETE", f"tokens/{reader.token[:15]}/").status_code == 204
    assert writer("GET", "me/").status_code == admin("GET", "me/").status_code == 200


def test_a_token_that_may_do_less_does_not_take_its_owner_out_of_the_team(people: Any) -> None:
    admin, viewer, _ = people
    admin("PATCH", f"members/{viewer.actor.user}/", {"role": "admin"})
    own = f"members/{admin.actor.user}/"
    for role in ("viewer", "engineer"):
        assert code(narrow(admin, role=role)("DELETE", own)) == (403, "role_too_low")
    assert admin("GET", "me/").status_code == 200
    assert admin("DELETE", own).status_code == 204


def test_a_person_has_so_many_tokens_in_a_team_and_sees_them_all(people: Any) -> None:
    admin, viewer, _ = people
    keys = [f"{number:015x}" for number in range(99)]
    ApiToken.objects.bulk_create(
        ApiToken(
            digest=f"{key}{person.actor.user.pk}",
            token_key=key,
            role=Role.VIEWER,
            user=person.actor.user,
            team=admin.actor.team,
        )
        for person in (admin, viewer)
        for key in keys
    )
    assert len(admin("GET", "tokens/").json()["items"]) == 2 * 100
    assert code(viewer("POST", "tokens/", {"name": "x", "role": "viewer"})) == (409, "too_many_tokens")
    viewer("DELETE", f"tokens/{keys[0]}/")
    assert viewer("POST", "tokens/", {"name": "x", "role": "viewer"}).status_code == 201


def test_what_expired_is_forgotten_after_a_week(people: Any) -> None:
    admin, viewer, stranger = people
    now = timezone.now()
    for person, days in ((viewer, 6), (stranger, 8)):
        ApiToken.objects.filter(user=person.actor.user).update(expiry=now - timedelta(days=days))
    for key, left in (("old", -1), ("new", 1)):
        Session.objects.create(session_key=key, session_data="", expire_date=now + timedelta(days=left))
    (duty,) = dispatch.DUTIES
    assert duty.run() == 2
    assert {row.user for row in ApiToken.objects.all()} == {admin.actor.user, viewer.actor.user}
    assert Session.objects.get().session_key == "new"


def test_members_are_listed_by_name_page_by_page(people: Any) -> None:
    admin, _, _ = people
    for name in ("aab", "aaa", "zzz"):
        Membership.objects.create(team=admin.actor.team, user=factories.user(name), role=Role.VIEWER)
    seen, path = [], "members/?limit=2"
    while path:
        page = admin("GET", path).json()
        seen += [row["username"] for row in page["items"]]
        path = (page["next"] or "").removeprefix("http://testserver/api/v1/")
    assert seen == sorted(seen)
    assert len(seen) == 5
    assert admin("GET", "members/?sort=-name").json()["items"][0]["username"] == "zzz"


def test_what_was_removed_a_moment_ago_is_not_found_and_leaves_no_trace(people: Any) -> None:
    admin, viewer, _ = people
    token = ApiToken.objects.get(user=viewer.actor.user)
    row = Membership.objects.get(user=viewer.actor.user)
    services.revoke_token(admin.actor, ApiToken.objects.get(pk=token.pk))
    services.remove_member(admin.actor, Membership.objects.get(pk=row.pk))
    before = AuditEvent.objects.count()
    for verb in (
        lambda: services.revoke_token(admin.actor, token),
        lambda: services.remove_member(admin.actor, row),
        lambda: services.change_role(admin.actor, row, role=Role.ADMIN),
    ):
        with pytest.raises(NotFound, match="removed in the meantime"):
            verb()
    assert AuditEvent.objects.count() == before


def test_the_trail_has_nothing_of_a_tokens_text(people: Any) -> None:
    admin, _, _ = people
    reader = narrow(admin)
    admin("DELETE", f"tokens/{reader.token[:15]}/")
    assert reader.token[:8] not in admin("GET", "activity/").content.decode()


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "text",
        None,
        {"name": "x"},
        {"name": "", "role": "viewer"},
        {"name": "  ", "role": "viewer"},
        {"name": "x" * 101, "role": "viewer"},
        {"name": "a\u202eb", "role": "viewer"},
        {"name": "x", "role": "owner"},
        {"name": "x", "role": ["viewer"]},
        {"name": "x", "role": {"viewer": 1}},
        {"name": "x", "role": "viewer", "expires_in_days": 0},
        {"name": "x", "role": "viewer", "expires_in_days": 366},
        {"name": "x", "role": "viewer", "expires_in_days": True},
        {"name": "x", "role": "viewer", "expires_in_days": 1.5},
        {"name": "x", "role": "viewer", "user": 1},
        {"name": "x", "role": "viewer", "digest": "0"},
    ],
)
def test_a_token_request_that_makes_no_sense_makes_no_token(people: Any, body: Any) -> None:
    admin, _, _ = people
    before = ApiToken.objects.count()
    assert admin("POST", "tokens/", body).status_code == 400
    assert ApiToken.objects.count() == before


def test_people_see_their_own_tokens_and_an_admin_the_teams(people: Any) -> None:
    def owners(caller: Caller) -> set[str]:
        return {row["owner"] for row in caller("GET", "tokens/").json()["items"]}

    admin, viewer, stranger = people
    names = [str(person.actor.user) for person in people]
    assert owners(admin) == {names[0], names[1]}
    assert owners(viewer) == {names[1]}
    assert owners(stranger) == {names[2]}


def test_revoking_is_for_the_owner_and_the_teams_admins(people: Any) -> None:
    admin, viewer, stranger = people
    admins, viewers = (ApiToken.objects.get(user=person.actor.user).token_key for person in (admin, viewer))
    assert code(stranger("DELETE", f"tokens/{viewers}/")) == (404, "not_found")
    assert code(viewer("DELETE", f"tokens/{admins}/")) == (404, "not_found")
    assert admin("DELETE", f"tokens/{viewers}/").status_code == 204
    assert viewer("GET", "me/").status_code == 401
    assert code(admin("DELETE", f"tokens/{viewers}/")) == (404, "not_found")
    assert admin("DELETE", f"tokens/{admins}/").status_code == 204
    assert admin("GET", "me/").status_code == 401


def test_a_new_person_gets_a_password_that_is_shown_once(people: Any) -> None:
    admin, _, _ = people
    made = admin("POST", "members/", {"username": "ada", "role": "engineer"})
    assert made.status_code == 201
    password = made.json()["password"]
    login = Client().post("/account/login/", {"login": "ada", "password": password})
    assert login.status_code == 302
    assert password not in admin("GET", "members/").content.decode()
    assert password not in admin("GET", "activity/").content.decode()


def test_a_person_who_has_an_account_keeps_their_password(people: Any) -> None:
    admin, _, stranger = people
    name = str(stranger.actor.user)
    made = admin("POST", "members/", {"username": name.upper(), "role": "viewer"})
    assert (made.status_code, made.json()["username"], made.json()["password"]) == (201, name, None)
    again = admin("POST", "members/", {"username": name, "role": "admin"})
    assert code(again) == (409, "already_member")
    assert Membership.objects.get(team=admin.actor.team, user=stranger.actor.user).role == Role.VIEWER


@pytest.mark.parametrize(
    "username", ["", " ", "a b", "a/b", "../x", "a\nb", "админ", "x" * 151, "-a", "a\u200bb", "{{7*7}}"]
)
def test_a_name_that_nobody_could_type_is_refused(people: Any, username: str) -> None:
    admin, _, _ = people
    assert admin("POST", "members/", {"username": username, "role": "viewer"}).status_code == 400


def test_only_admins_manage_members(people: Any) -> None:
    admin, viewer, stranger = people
    name = str(admin.actor.user)
    assert code(viewer("POST", "members/", {"username": "ada", "role": "viewer"})) == (403, "role_too_low")
    assert code(viewer("PATCH", f"members/{name}/", {"role": "viewer"})) == (403, "role_too_low")
    assert code(viewer("DELETE", f"members/{name}/")) == (403, "role_too_low")
    for method, body in (("GET", None), ("PATCH", {"role": "viewer"}), ("DELETE", None)):
        assert code(stranger(method, f"members/{name}/", body)) == (404, "not_found")
    assert name not in stranger("GET", "members/").content.decode()
    assert Membership.objects.get(user=admin.actor.user).role == Role.ADMIN


def test_nobody_changes_their_own_role(people: Any) -> None:
    admin, viewer, _ = people
    for person, role in ((admin, "viewer"), (admin, "admin"), (viewer, "admin")):
        answer = person("PATCH", f"members/{person.actor.user}/", {"role": role})
        assert answer.status_code == 403
    assert Membership.objects.get(user=viewer.actor.user).role == Role.VIEWER


def test_an_engineers_token_of_an_admin_manages_nobody(people: Any) -> None:
    admin, viewer, _ = people
    token = admin("POST", "tokens/", {"name": "narrow", "role": "engineer"}).json()["token"]
    narrow = Caller(actor=admin.actor, token=token)
    assert code(narrow("PATCH", f"members/{viewer.actor.user}/", {"role": "admin"})) == (403, "role_too_low")


def test_a_changed_role_counts_from_the_next_call(people: Any) -> None:
    admin, viewer, _ = people
    wider = admin("PATCH", f"members/{viewer.actor.user}/", {"role": "engineer"})
    assert (wider.status_code, wider.json()["role"]) == (200, "engineer")
    assert viewer("GET", "me/").json()["role"] == "viewer"  # its token was made for less
    made = viewer("POST", "tokens/", {"name": "x", "role": "viewer"})
    assert made.status_code == 201


def test_a_team_keeps_an_admin(people: Any) -> None:
    admin, viewer, _ = people
    assert code(admin("DELETE", f"members/{admin.actor.user}/")) == (409, "last_admin")
    admin("PATCH", f"members/{viewer.actor.user}/", {"role": "admin"})
    assert admin("DELETE", f"members/{admin.actor.user}/").status_code == 204
    assert admin("GET", "me/").status_code == 401


def test_a_disabled_admin_is_no_admin_to_rely_on(people: Any) -> None:
    admin, viewer, _ = people
    admin("PATCH", f"members/{viewer.actor.user}/", {"role": "admin"})
    viewer.actor.user.is_active = False
    viewer.actor.user.save()
    assert code(admin("DELETE", f"members/{admin.actor.user}/")) == (409, "last_admin")


def test_who_is_removed_loses_the_tokens_of_this_team_only(people: Any) -> None:
    admin, viewer, stranger = people
    Membership.objects.create(team=stranger.actor.team, user=viewer.actor.user, role=Role.VIEWER)
    elsewhere = caller(Actor(team=stranger.actor.team, role=Role.VIEWER, user=viewer.actor.user))
    assert admin("DELETE", f"members/{viewer.actor.user}/").status_code == 204
    assert viewer("GET", "me/").status_code == 401
    assert elsewhere("GET", "me/").status_code == 200
    admin("POST", "members/", {"username": str(viewer.actor.user), "role": "viewer"})
    assert viewer("GET", "me/").status_code == 401


def test_every_change_stands_in_the_trail_with_who_and_from_where(people: Any) -> None:
    admin, viewer, _ = people
    name = str(viewer.actor.user)
    key = admin("POST", "tokens/", {"name": "nightly", "role": "viewer"}).json()["token_key"]
    admin("DELETE", f"tokens/{key}/")
    admin("POST", "members/", {"username": "ada", "role": "viewer"})
    admin("PATCH", f"members/{name}/", {"role": "engineer"})
    admin("DELETE", f"members/{name}/")
    rows = AuditEvent.objects.filter(team=admin.actor.team).order_by("id")
    assert [row.verb for row in rows] == [
        "created API token",
        "revoked API token",
        "added member",
        "changed role of",
        "removed member",
    ]
    assert {(row.user, row.via) for row in rows} == {(admin.actor.user, "api")}
    assert rows[3].details == {"from": "viewer", "to": "engineer"}


def test_a_refused_change_leaves_no_trace(people: Any) -> None:
    admin, viewer, _ = people
    viewer("POST", "members/", {"username": "ada", "role": "viewer"})
    admin("DELETE", f"members/{admin.actor.user}/")
    admin("POST", "members/", {"username": str(viewer.actor.user), "role": "admin"})
    assert not AuditEvent.objects.exists()


def test_activity_is_the_teams_own_and_filters_literally(people: Any) -> None:
    admin, viewer, stranger = people
    admin("POST", "tokens/", {"name": "one", "role": "viewer"})
    viewer("POST", "tokens/", {"name": "two", "role": "viewer"})

    def seen(person: Caller, query: str = "") -> list[str]:
        return [row["person"] for row in person("GET", f"activity/?{query}").json()["items"]]

    names = [str(person.actor.user) for person in people]
    assert seen(viewer) == [names[1], names[0]]
    assert seen(stranger) == []
    assert seen(viewer, f"person={names[0]}") == [names[0]]
    assert seen(viewer, "person=slipway") == []
    assert seen(viewer, "text=API") == [names[1], names[0]]
    assert seen(viewer, "text=%25") == []
    assert seen(viewer, "text=_") == []
    assert seen(viewer, "object_type=model") == []
    first = viewer("GET", "activity/?limit=1&text=token").json()
    assert "text=token" in first["next"]
    second = viewer("GET", first["next"].removeprefix("http://testserver/api/v1/")).json()
    assert [row["person"] for row in second["items"]] == [names[0]]
    assert second["next"] is None


@pytest.mark.parametrize(
    "path", ["tokens/٣/", "tokens/../me/", "tokens/%00/", "members/nobody/", "members/%2e%2e/"]
)
def test_an_address_of_nothing_is_not_found(people: Any, path: str) -> None:
    admin, _, _ = people
    assert admin("GET", path).status_code in {400, 404}
    assert admin("DELETE", path).status_code in {400, 404}
