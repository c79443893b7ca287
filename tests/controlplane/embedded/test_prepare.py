"""The preparation gives an empty installation its first person, and leaves people as they are."""

import io

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from controlplane.accounts.models import Membership, Team, User
from controlplane.embedded.processes import OWN_LOGIN

pytestmark = pytest.mark.django_db


def prepare(monkeypatch: pytest.MonkeyPatch, *arguments: str, password: str = "generated one") -> str:
    """The last line that it says."""
    monkeypatch.setenv("SLIPWAY_ADMIN_PASSWORD", password)
    said = io.StringIO()
    call_command("prepare", *arguments, stdout=said)
    return said.getvalue().strip().rpartition("\n")[2]


def logs_in(password: str) -> bool:
    login = {"login": "admin", "password": password}
    return Client().post("/account/login/", login).status_code == 302


def test_the_first_person_is_made_once_and_logs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepare(monkeypatch) != OWN_LOGIN
    assert prepare(monkeypatch) != OWN_LOGIN
    assert logs_in("generated one")
    assert (User.objects.count(), Team.objects.count(), Membership.objects.count()) == (1, 1, 1)


def test_a_password_that_its_owner_changed_is_left_and_said_to_be_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare(monkeypatch)
    person = User.objects.get()
    person.set_password("a better one")
    person.save()
    assert prepare(monkeypatch) == OWN_LOGIN
    assert logs_in("a better one")


def test_a_newly_generated_password_logs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch)
    assert prepare(monkeypatch, "--new-password", password="another") != OWN_LOGIN
    assert logs_in("another")


def test_beside_other_people_the_admin_is_made_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    User.objects.create_user("ada")
    assert prepare(monkeypatch) == OWN_LOGIN
    assert not User.objects.filter(username="admin").exists()
    assert prepare(monkeypatch, "--admin") != OWN_LOGIN
    assert logs_in("generated one")


def test_the_demo_without_its_admin_says_how_to_make_one() -> None:
    with pytest.raises(CommandError, match="create_admin admin --team main"):
        call_command("demo_content")
