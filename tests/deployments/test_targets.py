"""Clusters as targets: their verbs, pages and API, for admin, teammate and stranger; and that no secret comes out."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from django.test import Client

from controlplane.accounts.access import Actor
from controlplane.accounts.models import AuditEvent, Role
from controlplane.core.errors import Conflict, InvalidInput
from deployments import clusters, services, targets
from deployments.clusters import ClusterPlace
from deployments.models import Deployment, Target
from deployments.targets.kubernetes import kinds, opening
from deployments.targets.kubernetes.kubeconfig import Connection
from tests import factories
from tests.deployments.targets.kubernetes import kubeconfigs
from tests.deployments.targets.kubernetes.fake import RunningFake, Script
from tests.deployments.targets.kubernetes.kubeconfigs import BAD, SERVER, TOKEN
from tests.deployments.targets.kubernetes.test_metrics_install import PEM

pytestmark = pytest.mark.django_db
FETCH_URL = "https://slipway.example.com"
GOOD = {"name": "west", "kubeconfig": kubeconfigs.text(), "namespace": "risk", "fetch_url": FETCH_URL}


@dataclass(frozen=True, kw_only=True)
class People:
    admin: Actor
    engineer: Actor
    viewer: Actor
    stranger: Actor

    def browser(self, actor: Actor) -> Client:
        client = Client()
        assert actor.user is not None
        client.force_login(actor.user)
        return client

    def api(self, actor: Actor, method: str, path: str = "", body: Any = None, **headers: str) -> Any:
        given = {"Authorization": f"Bearer {factories.token(actor)}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = b"" if body is None else json.dumps(body).encode()
        return Client().generic(method, f"/api/v1/targets/{path}", data, "application/json", headers=given)


@pytest.fixture
def people() -> People:
    team = factories.team()
    return People(
        admin=factories.member(team, role=Role.ADMIN),
        engineer=factories.member(team),
        viewer=factories.member(team, role=Role.VIEWER),
        stranger=factories.member(factories.team(), role=Role.ADMIN),
    )


def add(actor: Actor, *, name: str = "west", text: str = "", **place: str) -> Target:
    said = {"namespace": "risk", "fetch_url": FETCH_URL} | place
    return clusters.add_cluster(
        actor, name=name, place=ClusterPlace(**said), kubeconfig_text=text or kubeconfigs.text()
    )


@pytest.fixture(scope="module")
def fake() -> Iterator[RunningFake]:
    running = RunningFake().start()
    running.call(lambda: running.cluster.put("namespaces", {"metadata": {"name": "risk"}, "status": {}}))
    yield running
    running.stop()


@pytest.fixture
def answering(fake: RunningFake, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningFake]:
    """Every cluster is this one, which has nothing but the namespace."""
    real = opening.connection

    def reached(settings: Any, secret: bytes) -> Connection:
        return replace(real(settings, secret), server=fake.url)

    monkeypatch.setattr(opening, "connection", reached)
    targets.forget()
    yield fake
    fake.call(fake.cluster.scripts.clear)
    for key in list(fake.cluster.objects):
        if key[0] != "namespaces":
            fake.call(lambda key=key: fake.cluster.objects.pop(key))
    targets.forget()


# Adding one


def test_a_cluster_is_added_by_the_page_and_its_secret_is_sealed(people: People) -> None:
    answer = people.browser(people.admin).post("/targets/new/", GOOD)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/targets/west/")
    row = Target.objects.get(team=people.admin.team, name="west")
    assert TOKEN.encode() not in bytes(row.secret)
    assert TOKEN not in json.dumps(row.settings)
    assert opening.connection(row.settings, bytes(row.secret)).token == TOKEN


def test_a_cluster_is_added_by_the_api_and_answered_without_its_secret(people: People) -> None:
    answer = people.api(people.admin, "POST", body=GOOD)
    assert (answer.status_code, answer.headers["Location"]) == (201, "/api/v1/targets/west/")
    cluster = answer.json()["cluster"]
    assert (cluster["server"], cluster["namespace"], cluster["context"]) == (SERVER, "risk", "main")
    assert people.api(people.admin, "POST", body=GOOD).json()["code"] == "target_exists"


@pytest.mark.parametrize("who", ["engineer", "viewer"])
def test_only_admins_add_change_and_remove(people: People, who: str) -> None:
    add(people.admin)
    actor = getattr(people, who)
    browser = people.browser(actor)
    before = list(Target.objects.values_list("name", "settings", "secret"))
    for path, body in (
        ("new/", GOOD | {"name": "east"}),
        ("west/settings/", {"namespace": "other"}),
        ("west/kubeconfig/", {"kubeconfig": kubeconfigs.text(token="new")}),
        ("west/remove/", {"confirm": "west"}),
        ("west/metrics-api/", {"namespace": "risk", "ca_pem": PEM}),
    ):
        answer = browser.post(f"/targets/{path}", body, follow=True)
        assert b"needs the role admin" in answer.content, path
    for method, path, body in (
        ("POST", "", GOOD | {"name": "east"}),
        ("PATCH", "west/", {"namespace": "other"}),
        ("DELETE", "west/", None),
        ("POST", "west/metrics-api/", {"namespace": "risk", "ca_pem": PEM, "dry_run": True}),
    ):
        assert people.api(actor, method, path, body).status_code == 403, path
    assert list(Target.objects.values_list("name", "settings", "secret")) == before


READS = ("west/", "west/connection/", "this-machine/", "", "?part=csv", "?part=total")


def test_a_team_reads_its_targets_and_strangers_find_none(people: People, answering: RunningFake) -> None:
    add(people.admin)
    for actor in (people.admin, people.engineer, people.viewer):
        for path in READS:
            assert people.browser(actor).get(f"/targets/{path}").status_code == 200, path
        for path in ("west/", "west/connection/", "west/rights/", ""):
            assert people.api(actor, "GET", path).status_code == 200, path
    for path in ("west/", "west/connection/", "west/metrics-api/"):
        assert people.browser(people.stranger).get(f"/targets/{path}").status_code == 404
    for path in ("west/", "west/connection/", "west/rights/"):
        assert people.api(people.stranger, "GET", path).status_code == 404
    for method, body in (("PATCH", {"namespace": "x"}), ("DELETE", None)):
        assert people.api(people.stranger, method, "west/", body).status_code == 404
    assert b"/targets/west/" not in people.browser(people.stranger).get("/targets/").content


@pytest.mark.parametrize(("text", "sentence"), BAD.values(), ids=BAD.keys())
def test_a_kubeconfig_that_cannot_be_used_is_a_sentence_and_nothing_is_stored(
    people: People, text: str, sentence: str
) -> None:
    before = Target.objects.count()
    page = people.browser(people.admin).post("/targets/new/", GOOD | {"kubeconfig": text})
    assert page.status_code == 400
    answer = people.api(people.admin, "POST", body=GOOD | {"kubeconfig": text})
    assert answer.status_code == 400
    if answer.json()["code"] != "invalid_input":  # a letter that no JSON of ours may have is named, too
        assert sentence in answer.json()["detail"]
        assert answer.json()["errors"][0]["field"] == "kubeconfig"
        assert sentence.split(" (")[0] in page.content.decode().replace("&#x27;", "'")
    assert (Target.objects.count(), AuditEvent.objects.filter(object_type="target").count()) == (before, 0)
    for told in (page.content.decode(), answer.content.decode()):
        assert TOKEN not in told
        assert "hunter2" not in told


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "West"}, "name"),
        ({"name": "new"}, "name"),
        ({"kubeconfig": ""}, "kubeconfig"),
        ({"namespace": "kube-system"}, "namespace"),
        ({"namespace": "default"}, "namespace"),
        ({"namespace": "a/b"}, "namespace"),
        ({"fetch_url": "ftp://x"}, "fetch_url"),
        ({"fetch_url": "https://root:hunter2@x"}, "fetch_url"),
        ({"fetch_image": "Not An Image"}, "fetch_image"),
        ({"slipway_namespace": "Not"}, "slipway_namespace"),
        ({"keda_secret": "../x"}, "keda_secret"),
        ({"fetch_ca": "no PEM"}, "fetch_ca"),
        ({"scrape": "guess"}, "scrape"),
        ({"metrics_url": "javascript:x"}, "metrics_url"),
        ({"context": "nowhere"}, "context"),
    ],
)
def test_each_field_is_refused_by_its_name_on_page_and_api(
    people: People, change: dict[str, str], field: str
) -> None:
    before = Target.objects.count()
    answer = people.api(people.admin, "POST", body=GOOD | change)
    assert answer.status_code == 400
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    page = people.browser(people.admin).post("/targets/new/", GOOD | change)
    assert page.status_code == 400
    assert field in page.context["form"].errors
    assert Target.objects.count() == before


def test_of_several_contexts_one_is_chosen_without_pasting_again(people: People) -> None:
    browser = people.browser(people.admin)
    text = kubeconfigs.with_contexts("a", "b")
    first = browser.post("/targets/new/", GOOD | {"kubeconfig": text})
    assert first.status_code == 400
    assert b"has 2 contexts: choose one of them" in first.content
    assert TOKEN not in first.content.decode()
    kept = first.context["form"]["kept"].value()
    second = browser.post("/targets/new/", GOOD | {"kubeconfig": "", "kept": kept, "context": "a"})
    assert second.status_code == 302
    row = Target.objects.get(name="west")
    assert (row.settings["context"], opening.connection(row.settings, bytes(row.secret)).context) == (
        "a",
        "a",
    )


def test_what_is_kept_for_one_is_nobody_else_s_and_does_not_last(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = clusters.keep(people.admin, "text")
    assert clusters.kept(people.admin, kept) == "text"
    assert clusters.kept(people.stranger, kept) == ""
    assert clusters.kept(people.engineer, kept) == ""
    assert clusters.kept(people.admin, "nonsense") == ""
    monkeypatch.setattr(clusters, "KEPT_S", -1)
    assert clusters.kept(people.admin, clusters.keep(people.admin, "text")) == ""


def test_two_teams_do_not_share_a_namespace_of_a_cluster(people: People) -> None:
    add(people.admin)
    with pytest.raises(Conflict, match="Another team uses this namespace"):
        add(people.stranger, name="mine")
    assert add(people.stranger, name="mine", namespace="theirs").name == "mine"
    with pytest.raises(Conflict, match="Another team"):
        clusters.change_cluster(
            people.stranger, Target.objects.get(name="mine"), changes={"namespace": "risk"}
        )


# Slipway's own account


def test_slipway_s_own_account_is_lent_only_where_the_operator_says_so(
    people: People, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"name": "here", "namespace": "risk", "in_cluster": True}
    refused = people.api(people.admin, "POST", body=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "in_cluster_off")
    assert b"own account" not in people.browser(people.admin).get("/targets/new/").content.split(b"<h2")[0]
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, in_cluster=True)
    outside = people.api(people.admin, "POST", body=body)
    assert (outside.status_code, outside.json()["code"]) == (400, "invalid_kubeconfig")
    assert "does not run in a cluster" in outside.json()["detail"]
    monkeypatch.setattr(
        opening.kubeconfig, "in_cluster", lambda **_: Connection(server="https://10.0.0.1:443")
    )
    made = people.api(people.admin, "POST", body=body)
    assert (made.status_code, made.json()["cluster"]["in_cluster"]) == (201, True)
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, in_cluster=False)
    report = people.api(people.admin, "GET", "here/connection/").json()
    assert (report["reachable"], report["findings"][0]["code"]) == (False, "in_cluster_off")


# Changing and removing


def test_the_kubeconfig_is_replaced_and_the_old_one_is_gone(people: People) -> None:
    row = add(people.admin)
    services.create_deployment(people.engineer, name="scorer", target=row)
    answer = people.browser(people.admin).post(
        "/targets/west/kubeconfig/", {"kubeconfig": kubeconfigs.text(token="fresh")}
    )
    assert answer.status_code == 302
    row.refresh_from_db()
    assert opening.connection(row.settings, bytes(row.secret)).token == "fresh"


def test_while_deployments_use_it_the_cluster_and_its_namespace_stay(people: People) -> None:
    row = add(people.admin)
    services.create_deployment(people.engineer, name="scorer", target=row)
    for body, field in (
        ({"namespace": "other"}, "namespace"),
        ({"kubeconfig": kubeconfigs.text(server="https://elsewhere.example.com")}, "kubeconfig"),
    ):
        refused = people.api(people.admin, "PATCH", "west/", body)
        assert (refused.status_code, refused.json()["code"]) == (409, "target_in_use")
        assert refused.json()["errors"][0]["field"] == field
    assert people.api(people.admin, "PATCH", "west/", {"fetch_image": "a/b:1"}).status_code == 200
    assert people.api(people.admin, "DELETE", "west/").json()["code"] == "target_in_use"
    Deployment.objects.all().delete()
    assert people.api(people.admin, "PATCH", "west/", {"namespace": "other"}).status_code == 200
    assert people.api(people.admin, "DELETE", "west/").status_code == 204


def test_removing_asks_for_the_name_and_spares_this_machine(people: People) -> None:
    add(people.admin)
    browser = people.browser(people.admin)
    browser.post("/targets/west/remove/", {"confirm": "wets"})
    assert Target.objects.filter(name="west").exists()
    browser.post("/targets/west/remove/", {"confirm": "west"})
    assert not Target.objects.filter(name="west").exists()
    refused = people.api(people.admin, "DELETE", "this-machine/")
    assert (refused.status_code, refused.json()["code"]) == (409, "own_machine")
    assert people.api(people.admin, "PATCH", "this-machine/", {"namespace": "x"}).status_code == 422


# The connection


def test_a_cluster_that_has_everything_is_usable(people: People, answering: RunningFake) -> None:
    add(people.admin)
    report = people.api(people.viewer, "GET", "west/connection/").json()
    assert report["usable"], report
    assert report["version"].startswith("v1.")
    assert report["latency_ms"] > 0
    assert report["identity"] == "system:serviceaccount:ml:slipway"
    assert (report["namespace_exists"], report["missing"], report["metrics_provider"]) == (True, [], "")
    assert (report["gateway_api"], report["keda"]) == (False, False)


def test_what_is_missing_is_said_right_by_right(people: People, answering: RunningFake) -> None:
    add(people.admin, namespace="nowhere")
    answering.cluster.may = lambda asked: asked["resource"] != "services"
    try:
        report = people.api(people.viewer, "GET", "west/connection/").json()
    finally:
        answering.cluster.may = lambda asked: True
    assert not report["usable"]
    assert "delete services" in report["missing"]
    assert {one["code"] for one in report["findings"]} == {"permission_missing", "namespace_missing"}


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (401, "Unauthorized", "credentials_refused"),
        (403, "Forbidden", "not_permitted"),
        (404, "NotFound", "not_in_cluster"),
        (429, "TooManyRequests", "cluster_busy"),
        (500, "InternalError", "cluster_failing"),
    ],
)
def test_each_failure_is_a_sentence_on_page_and_api(
    people: People, answering: RunningFake, status: int, reason: str, code: str
) -> None:
    add(people.admin)
    message = f'User "x" cannot do this: forbidden, you sent Bearer {TOKEN}'
    script = Script(matches=lambda request: True, status=status, message=message, reason=reason, times=10**6)
    answering.script(script)
    answer = people.api(people.viewer, "GET", "west/connection/")
    assert (answer.status_code, answer.json()["reachable"]) == (200, False)
    assert answer.json()["findings"][0]["code"] == code
    page = people.browser(people.viewer).get("/targets/west/connection/")
    assert page.status_code == 200
    assert b"no answer that Slipway can use" in page.content
    assert TOKEN not in page.content.decode() + answer.content.decode()


def test_an_address_where_nobody_is_costs_a_sentence(people: People) -> None:
    from tests.deployments.targets.conftest import free_port

    add(people.admin, text=kubeconfigs.text(server=f"https://127.0.0.1:{free_port()}"))
    report = people.api(people.viewer, "GET", "west/connection/").json()
    assert (report["reachable"], report["findings"][0]["code"]) == (False, "cluster_unreachable")


def test_a_secret_of_another_key_is_a_sentence(people: People, settings: Any) -> None:
    add(people.admin)
    settings.SECRET_KEY = "another" * 10
    row = Target.objects.get(name="west")
    report = clusters.test_connection(row)
    assert (report.reachable, report.findings[0].code) == (False, "secret_unreadable")


def test_the_page_asks_the_cluster_nothing_by_itself(people: People, answering: RunningFake) -> None:
    add(people.admin)
    before = len(answering.cluster.requests_made)
    page = people.browser(people.viewer).get("/targets/west/")
    assert b'hx-get="/targets/west/connection/"' in page.content
    assert len(answering.cluster.requests_made) == before
    part = people.browser(people.viewer).get("/targets/west/connection/", headers={"HX-Request": "true"})
    assert part.content.lstrip().startswith(b"<section")
    assert len(answering.cluster.requests_made) > before


# The metrics API


def test_the_metrics_api_is_shown_then_installed(people: People, answering: RunningFake) -> None:
    add(people.admin)
    browser = people.browser(people.admin)
    body = {"namespace": "risk", "ca_pem": PEM, "outside": "metrics.example.com:8443"}
    shown = browser.post("/targets/west/metrics-api/", body)
    assert shown.status_code == 200
    assert b"Install the metrics API" in shown.content
    assert not [key for key in answering.cluster.objects if key[0] == "apiservices"]
    installed = browser.post("/targets/west/metrics-api/", body | {"etag": shown.context["shown"].etag})
    assert installed.status_code == 302
    assert ("apiservices", "", kinds.EXTERNAL_METRICS) in answering.cluster.objects
    assert AuditEvent.objects.filter(verb="installed the metrics API on").count() == 1
    again = browser.post("/targets/west/metrics-api/", body)
    assert b"installed like this already" in again.content


def test_the_api_installs_only_what_was_looked_at(people: People, answering: RunningFake) -> None:
    add(people.admin)
    body = {"namespace": "risk", "ca_pem": PEM, "outside": "metrics.example.com:8443"}
    path = "west/metrics-api/"
    assert people.api(people.admin, "POST", path, body).status_code == 428
    dry = people.api(people.admin, "POST", path, body | {"dry_run": True})
    assert (dry.status_code, dry.json()["applied"]) == (200, False)
    stale = people.api(people.admin, "POST", path, body, If_Match='"x"')
    assert stale.status_code == 412
    done = people.api(people.admin, "POST", path, body, If_Match=dry.headers["ETag"])
    assert (done.status_code, done.json()["applied"]) == (200, True)


def test_an_account_without_the_rights_gets_the_objects_for_kubectl(
    people: People, answering: RunningFake
) -> None:
    add(people.admin)
    message = 'clusterroles is forbidden: User "slipway" cannot get resource'
    answering.script(
        Script(
            matches=lambda request: "clusterroles" in str(request.url), status=403, message=message, times=9
        )
    )
    body = {"namespace": "risk", "ca_pem": PEM, "outside": "metrics.example.com:8443"}
    page = people.browser(people.admin).post("/targets/west/metrics-api/", body)
    assert page.status_code == 409
    assert b"kind: APIService" in page.content
    assert b"Install the metrics API</button>" not in page.content


def test_another_provider_is_named_with_what_to_do(people: People, answering: RunningFake) -> None:
    add(people.admin)
    theirs = {
        "metadata": {"name": kinds.EXTERNAL_METRICS, "labels": {}},
        "spec": {"service": {"namespace": "keda", "name": "keda-metrics"}},
    }
    answering.call(lambda: answering.cluster.put("apiservices", theirs))
    page = people.browser(people.admin).post(
        "/targets/west/metrics-api/", {"namespace": "risk", "ca_pem": PEM}
    )
    assert page.status_code == 409
    assert b"keda/keda-metrics" in page.content
    assert b"Choose KEDA" in page.content
    report = people.api(people.viewer, "GET", "west/connection/").json()
    assert (report["metrics_provider"], report["metrics_provider_is_slipway"]) == ("keda/keda-metrics", False)


# What is told of it


def test_no_answer_page_audit_row_or_log_line_has_the_token(
    people: People, answering: RunningFake, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    browser = people.browser(people.admin)
    secret = {"kubeconfig": GOOD["kubeconfig"]}
    answers = [
        browser.post("/targets/new/", GOOD, follow=True),
        browser.post("/targets/new/", GOOD, follow=True),  # the name is taken
        browser.post("/targets/west/kubeconfig/", secret, follow=True),
        people.api(people.admin, "PATCH", "west/", secret),
        *(browser.get(f"/targets/{path}") for path in ("", "west/", "west/connection/", "west/metrics-api/")),
        *(
            people.api(people.admin, "GET", path)
            for path in ("", "west/", "west/connection/", "west/rights/")
        ),
        browser.get("/activity/"),
    ]
    told = [answer.content.decode() for answer in answers]
    rows = AuditEvent.objects.filter(object_type="target")
    assert {row.verb for row in rows} == {"added", "replaced the kubeconfig of"}
    told += [json.dumps(row.details) for row in rows]
    told.append(caplog.text)
    assert not [text[:200] for text in told if TOKEN in text or GOOD["kubeconfig"] in text]


def test_the_list_says_who_uses_it_and_since_when_it_is_silent(people: People) -> None:
    from django.utils import timezone

    row = add(people.admin)
    services.create_deployment(people.engineer, name="scorer", target=row)
    now = timezone.now()
    Deployment.objects.update(observed_at=now, unreachable_since=now)
    document = people.api(people.viewer, "GET", "west/").json()
    assert (document["deployments"], document["unreachable_since"] is not None) == (1, True)
    page = people.browser(people.viewer).get("/targets/").content.decode()
    assert "Unreachable" in page
    assert "No cluster yet" not in page


def test_a_team_without_a_cluster_is_told_what_one_is(people: People) -> None:
    admin = people.browser(people.admin).get("/targets/").content.decode()
    assert "No cluster yet" in admin
    assert "/targets/new/" in admin
    assert "An admin of" in people.browser(people.viewer).get("/targets/").content.decode()


def test_the_deployment_form_says_which_target_is_a_cluster(people: People) -> None:
    add(people.admin)
    factories.version(factories.model(people.admin.team))
    page = people.browser(people.engineer).get("/deployments/new/").content.decode()
    assert "west, Kubernetes namespace risk" in page


def test_targets_are_found_by_name_and_address(people: People) -> None:
    add(people.admin)
    for text in ("wes", "cluster.example"):
        assert "/targets/west/" in people.browser(people.viewer).get(f"/search/?q={text}").content.decode()
        assert (
            "/targets/west/" not in people.browser(people.stranger).get(f"/search/?q={text}").content.decode()
        )


def test_the_rights_can_be_taken_away_as_yaml(people: People) -> None:
    browser = people.browser(people.viewer)
    text = browser.get("/targets/rights.yaml?namespace=risk").content.decode()
    assert "namespace: risk" in text
    assert browser.get("/targets/rights.yaml?namespace=%0Aevil").status_code == 404
    with pytest.raises(InvalidInput):
        ClusterPlace(namespace="\nevil")
