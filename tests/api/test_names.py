"""What may be a name, wherever the API takes one: in a body and in an address."""

from typing import Any

import pytest

from controlplane.accounts.models import Team
from controlplane.registry.models import Model
from deployments.models import Deployment
from tests.api.answers import complaints, nothing_written
from tests.api.routes import ROOT
from tests.api.world import World

NAMED = {"models": {}, "deployments": {"target": "this-machine"}}
"""Lists whose rows are made with a name, and what else they need."""

NO_NAMES = [
    "", " ", "   ", "a" * 64, "a" * 254, "A", "Fraud", "a_b", "-a", "a-", "a.b", ".", "..", "a/b", "a\\b", "%2e%2e%2f",
    "a?b#c", "a b", " a", "a ", "раураl", "a\u200bb", "\u202eabc", "a" + "\u0301" * 10_000, "ａ", "ﬁ", "é", "😀",
    "a\nb", "a\rb", "a\tb", "a\x1b[31mb", "x\n  hostNetwork: true", "{{7*7}}", "${HOME}", "!!python/object:a.b",
    "*a", "&a", "$(id)", "`id`", "; rm -rf /", "| id", "<script>alert(1)</script>", "' OR 1=1--", '"} or vector(1) #',
    "a:b", "a@b", "a,b", "a=b", "a*", "~", "\ufeffa", "kubernetes.io/a", "٣",
]  # fmt: skip

RESERVED = ["default", "kube-system", "kube-public", "kube-node-lease", "slipway", "new", "upload"]

PLAIN = ["null", "true", "yes", "1e3", "0x10", "2026-01-01", "nan", "none", "0", "007", "a", "a" * 63, "x--y"]


@pytest.mark.parametrize("rows", NAMED)
def test_what_is_no_label_is_no_name(world: World, rows: str) -> None:
    with complaints() as wrong, nothing_written(wrong, "names"):
        for name in [*NO_NAMES, *RESERVED]:
            response = world.admin.ask("POST", f"{ROOT}{rows}/", NAMED[rows] | {"name": name})
            wrong.check(f"{name[:30]!r}", response, statuses={400})
            if response.status_code == 400:
                problem = response.json()
                if [one["field"] for one in problem["errors"]] != ["name"]:
                    wrong.say(repr(name[:30]), "is not told at its field")
                if any(ord(character) < 32 for character in problem["detail"]):
                    wrong.say(repr(name[:30]), "comes back raw")


@pytest.mark.parametrize("rows", NAMED)
@pytest.mark.parametrize("name", PLAIN)
def test_a_word_that_other_formats_read_otherwise_is_that_very_name(
    world: World, rows: str, name: str
) -> None:
    made = world.admin.ask("POST", f"{ROOT}{rows}/", NAMED[rows] | {"name": name})
    assert (made.status_code, made.json()["name"]) == (201, name)
    assert world.viewer.ask("GET", made["Location"]).json()["name"] == name


def test_an_alias_and_a_data_set_keep_the_same_rule(world: World) -> None:
    """Their names stand in the address: what is no label there is no address."""
    body = {"version": 1, "variant": 0}
    with complaints() as wrong, nothing_written(wrong, "names in addresses"):
        for name in ("A", "a_b", "-a", "a" * 64, "%2e%2e", "a%20b", "%00"):
            wrong.check(
                name, world.admin.ask("PUT", f"{ROOT}models/churn/aliases/{name}/", body), statuses={404}
            )
        for name in RESERVED:
            wrong.check(
                name, world.admin.ask("PUT", f"{ROOT}models/churn/aliases/{name}/", body), statuses={400}
            )
    for name in PLAIN:
        response = world.admin.ask("PUT", f"{ROOT}models/churn/aliases/{name}/", body)
        assert (response.status_code, response.json()["alias"]) == (200, name)


def test_a_name_is_taken_within_its_team_only(world: World) -> None:
    with complaints() as wrong, nothing_written(wrong, "taken"):
        for rows, name in (("models", "churn"), ("deployments", "scoring")):
            again = world.admin.ask("POST", f"{ROOT}{rows}/", NAMED[rows] | {"name": name})
            wrong.check(rows, again, statuses={409})
    for rows, name in (("models", "churn"), ("deployments", "scoring")):
        theirs = world.stranger.ask("POST", f"{ROOT}{rows}/", NAMED[rows] | {"name": name})
        assert theirs.status_code == 201
    island = Team.objects.get(name="island")
    assert Model.objects.in_team(island).get().name == "churn"
    assert Deployment.objects.in_team(island).get().name == "scoring"


LITERAL = [
    "{{7*7}}",
    "${jndi:ldap://x}",
    "!!python/object:a",
    "*a",
    "<script>alert(1)</script>",
    "%s%n",
    "$(id)",
    "\u202ex",
]


@pytest.mark.parametrize("text", LITERAL)
def test_a_description_is_text_whatever_it_looks_like(world: World, text: str) -> None:
    response: Any = world.admin.ask("PATCH", f"{ROOT}models/churn/", {"description": text})
    assert (response.status_code, response.json()["description"]) == (200, text)
    assert response["Content-Type"] == "application/json"
    assert response["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "value", ["$(id)", "`id`", "; rm -rf /", "a b", '"', "'", "\\", "*", "\n", "é", "😀"]
)
def test_a_replicas_variable_is_kept_to_the_letter(world: World, value: str) -> None:
    """It becomes one entry of a process's environment; no shell ever sees it."""
    body = {"model": "churn", "version": 1, "spec": {"environment": {"GREETING": value}}}
    response = world.admin.ask("POST", f"{ROOT}deployments/scoring/revisions/", body)
    assert response.status_code == 201
    assert response.json()["spec"]["environment"] == {"GREETING": value}
