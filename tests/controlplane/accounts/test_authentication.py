"""Who a request is: one query per token, and everything that is no valid token is 401 at once."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane.accounts import services
from controlplane.accounts.access import Actor
from controlplane.accounts.models import ApiToken, Membership, Role
from tests import factories

pytestmark = pytest.mark.django_db


def get(token: str, path: str = "/api/v1/me/", scheme: str = "Bearer") -> Any:
    return Client().get(path, headers={"Authorization": f"{scheme} {token}"})


def refused(response: Any) -> bool:
    return (response.status_code, response["WWW-Authenticate"], response["Content-Type"]) == (
        401,
        "Bearer",
        "application/problem+json",
    ) and bool(response.json()["code"] == "not_authenticated")


@pytest.fixture
def actor() -> Actor:
    return factories.member(factories.team())


def test_a_token_acts_as_its_owner_in_its_team(actor: Actor) -> None:
    document = get(factories.token(actor)).json()
    assert (document["username"], document["team"]) == (str(actor.user), actor.team.name)


def test_a_token_costs_one_query_with_team_and_role(actor: Actor) -> None:
    token = factories.token(actor)
    get(token)  # the first use is stamped
    with CaptureQueriesContext(connection) as queries:
        assert get(token, "/api/v1/schema-that-is-not-there/").status_code == 404
    assert len(queries) == 0
    with CaptureQueriesContext(connection) as queries:
        assert get(token, "/api/v1/tokens/").status_code == 200
    assert len(queries) == 2  # the token, and the list that was asked for


def test_use_is_stamped_once_a_minute_and_not_on_every_call(actor: Actor) -> None:
    token = factories.token(actor)
    get(token)
    first = ApiToken.objects.get().last_used_at
    get(token)
    assert first is not None
    assert ApiToken.objects.get().last_used_at == first
    ApiToken.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
    get(token)
    assert timezone.now() - (ApiToken.objects.get().last_used_at or first) < timedelta(minutes=1)


@pytest.mark.parametrize("scheme", ["Basic", "Token", "bearer2", "Digest"])
def test_another_scheme_is_refused(actor: Actor, scheme: str) -> None:
    assert refused(get(factories.token(actor), scheme=scheme))


def test_no_credentials_are_refused() -> None:
    assert refused(Client().get("/api/v1/me/"))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "0" * 64,
        "0" * 15,
        "a b",
        "é" * 32,
        "\0" * 64,
        "a" * 63 + "\0",
        "٣".encode().decode("latin-1") * 32,
        "' OR 1=1--",
        "%",
        "A" * 64,
        "0" * 100_000,
    ],
)
def test_what_is_no_token_is_refused(actor: Actor, token: str) -> None:
    factories.token(actor)
    assert refused(get(token))


@pytest.mark.parametrize("spoil", [str.upper, lambda t: t[:-1], lambda t: t + "0", lambda t: t[:15] + t[:49]])
def test_a_token_that_is_nearly_right_is_refused(actor: Actor, spoil: Any) -> None:
    token = factories.token(actor)
    assert get(token).status_code == 200
    assert spoil(token) != token
    assert refused(get(spoil(token)))


@pytest.mark.parametrize("name", ["token", "access_token", "api_key", "Authorization"])
def test_a_token_in_the_address_is_ignored(actor: Actor, name: str) -> None:
    assert refused(Client().get(f"/api/v1/me/?{name}={factories.token(actor)}"))


def test_a_revoked_token_stops_at_once(actor: Actor) -> None:
    token = factories.token(actor)
    assert get(token).status_code == 200
    services.revoke_token(actor, ApiToken.objects.get())
    assert refused(get(token))


def test_an_expired_token_is_refused(actor: Actor) -> None:
    token = factories.token(actor)
    ApiToken.objects.update(expiry=timezone.now() - timedelta(microseconds=1))
    assert refused(get(token))


def test_a_disabled_persons_token_stops_at_once(actor: Actor) -> None:
    token = factories.token(actor)
    assert actor.user is not None
    actor.user.is_active = False
    actor.user.save()
    assert refused(get(token))


def test_a_deleted_persons_token_stops_at_once(actor: Actor) -> None:
    token = factories.token(actor)
    assert actor.user is not None
    actor.user.delete()
    assert refused(get(token))


def test_who_left_the_team_has_no_token_of_it(actor: Actor) -> None:
    token = factories.token(actor)
    Membership.objects.filter(user=actor.user).delete()
    assert refused(get(token))


def test_a_token_of_one_team_is_nothing_in_another(actor: Actor) -> None:
    """Also where its owner is a member of both, with a higher role there."""
    other = factories.team()
    assert actor.user is not None
    Membership.objects.create(team=other, user=actor.user, role=Role.ADMIN)
    factories.model(other, "theirs")
    token = factories.token(actor)
    document = get(token).json()
    assert (document["team"], document["role"]) == (actor.team.name, actor.role)
    assert [row["team"] for row in document["teams"]] == [actor.team.name]
    assert get(token, "/api/v1/models/theirs/").status_code == 404


def test_a_token_never_does_more_than_its_owner_may_now(actor: Actor) -> None:
    token = factories.token(actor)
    Membership.objects.filter(user=actor.user).update(role=Role.VIEWER)
    assert get(token).json()["role"] == Role.VIEWER


def test_a_token_never_does_more_than_was_asked_for() -> None:
    admin = factories.member(factories.team(), role=Role.ADMIN)
    _, token = services.create_token(admin, name="reads", role=Role.VIEWER)
    assert get(token).json()["role"] == Role.VIEWER
    refusal = Client().post(
        "/api/v1/models/",
        {"name": "a"},
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}"},
    )
    assert (refusal.status_code, refusal.json()["code"]) == (403, "role_too_low")


def test_the_token_is_in_no_table(actor: Actor) -> None:
    token = factories.token(actor)
    row = ApiToken.objects.get()
    assert token not in {str(value) for value in vars(row).values()}
