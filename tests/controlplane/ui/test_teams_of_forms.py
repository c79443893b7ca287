"""A form acts in the team that it was shown for, or not at all."""

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from controlplane.accounts.access import TEAM_FIELD
from controlplane.accounts.models import Membership, Role, User
from controlplane.registry.models import Model
from tests import factories

pytestmark = pytest.mark.django_db
HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)">')


@pytest.fixture
def ada() -> User:
    """An admin of two teams that both have a model “fraud”."""
    user = factories.user()
    for name in ("alpha", "beta"):
        team = factories.team(name)
        Membership.objects.create(team=team, user=user, role=Role.ADMIN)
        factories.model(team, "fraud")
    return user


@pytest.fixture
def browser(ada: User) -> Client:
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)
    return client


def shown(browser: Client, path: str) -> dict[str, str]:
    """What a form of the page sends without anybody filling it in."""
    return dict(HIDDEN.findall(browser.get(path).content.decode()))


def switch(browser: Client, team: str) -> None:
    fields = shown(browser, reverse("accounts:settings"))
    assert browser.post(reverse("accounts:switch-team"), fields | {"team": team}).status_code == 302


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/models/fraud/delete/", {"confirm": "fraud"}),
        ("/models/fraud/edit/", {"description": "changed"}),
        ("/models/fraud/versions/new/", {}),
        ("/settings/tokens/", {"name": "x", "role": "viewer", "expires_in_days": "7"}),
    ],
)
def test_a_form_of_another_team_changes_nothing_and_says_why(
    browser: Client, path: str, fields: dict[str, Any]
) -> None:
    form = shown(browser, path)
    assert TEAM_FIELD in form
    switch(browser, "beta")
    answer = browser.post(path, form | fields)
    assert answer.status_code == 409
    page = answer.content.decode()
    assert "This form was shown for another team." in page
    assert "beta" in page
    assert Model.objects.filter(name="fraud", description="").count() == 2


def test_the_form_acts_where_it_was_shown(browser: Client) -> None:
    switch(browser, "beta")
    path = "/models/fraud/delete/"
    assert browser.post(path, shown(browser, path) | {"confirm": "fraud"}).status_code == 302
    assert Model.objects.get(name="fraud").team.name == "alpha"


def test_a_person_switches_on_and_logs_out_from_a_page_of_any_team(browser: Client) -> None:
    old = shown(browser, reverse("accounts:settings"))
    switch(browser, "beta")
    assert browser.post(reverse("accounts:switch-team"), old | {"team": "alpha"}).status_code == 302
    switch(browser, "beta")
    assert browser.post("/account/logout/", old).status_code == 302
    assert browser.get("/models/").status_code == 302


def test_the_login_form_has_no_team() -> None:
    assert TEAM_FIELD not in shown(Client(), "/account/login/")
