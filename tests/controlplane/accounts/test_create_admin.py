"""The first person, made from the command line; the same call again changes nothing else."""

import io

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from controlplane.accounts.models import AuditEvent, Membership, Role, Team, User

pytestmark = pytest.mark.django_db


def create(monkeypatch: pytest.MonkeyPatch, *, password: str, team: str = "vision") -> str:
    monkeypatch.setenv("SLIPWAY_ADMIN_PASSWORD", password)
    said = io.StringIO()
    call_command("create_admin", "ada", team=team, stdout=said)
    return said.getvalue()


def test_the_person_can_log_in_as_admin_of_the_team(monkeypatch: pytest.MonkeyPatch) -> None:
    assert create(monkeypatch, password="correct horse") == "ada is admin of the team vision.\n"
    client = Client()
    assert client.post("/account/login/", {"login": "ada", "password": "correct horse"}).status_code == 302
    me = client.get("/api/v1/me/").json()
    assert (me["team"], me["role"]) == ("vision", "admin")


def test_again_makes_nothing_twice_and_keeps_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    create(monkeypatch, password="correct horse")
    client = Client()
    client.post("/account/login/", {"login": "ada", "password": "correct horse"})
    create(monkeypatch, password="correct horse")
    assert (User.objects.count(), Team.objects.count(), Membership.objects.count()) == (1, 1, 1)
    (row,) = AuditEvent.objects.all()
    assert (row.verb, row.user, row.object_name, row.via) == ("made admin", None, "ada", "system")
    assert row.details == {"changed": ["account", "password", "role"]}
    assert client.get("/api/v1/me/").status_code == 200


def test_another_password_replaces_the_old_one_and_brings_back_a_lost_admin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create(monkeypatch, password="correct horse")
    User.objects.update(is_active=False)
    Membership.objects.update(role=Role.VIEWER)
    create(monkeypatch, password="battery staple")
    login = {"login": "ada", "password": "battery staple"}
    assert Client().post("/account/login/", login).status_code == 302
    assert Membership.objects.get().role == Role.ADMIN
    assert AuditEvent.objects.first().details == {"changed": ["password", "enabled", "role"]}  # type: ignore[union-attr]


def test_without_a_password_nobody_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(CommandError, match="No password"):
        create(monkeypatch, password="")
    assert not User.objects.exists()


def test_a_team_name_that_breaks_the_rule_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="not a valid team name"):
        create(monkeypatch, password="correct horse", team="Vision Team")
    assert not User.objects.exists()
