"""A Deployment that others made: it is found, read as a revision, looked at, taken over, and given back, and nothing of
it is written before it was asked for."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from django.test import Client

from controlplane.accounts.access import Actor
from controlplane.accounts.models import AuditEvent
from controlplane.core import storage
from controlplane.core.errors import Conflict, NotFound
from controlplane.registry.models import Artifact, Variant
from deployments import handover, imports, preview, reconciler, selectors, services, specs, targets
from deployments.models import Deployment, ImportedFrom, Rollout, Target
from deployments.targets.kubernetes import names
from deployments.targets.kubernetes.api import Object
from deployments.targets.kubernetes.kinds import DEPLOYMENT, HPA, SERVICE, Kind
from deployments.targets.port import StaleGeneration
from tests import factories
from tests.deployments.targets.kubernetes import kubelet
from tests.deployments.targets.kubernetes.room import Room

pytestmark = pytest.mark.django_db
WITHIN_S = 30
SERVER: dict[str, Any] = {
    "name": "app",
    "image": "registry.example.com/fraud:7",
    "ports": [{"containerPort": 8080}],
    "env": [{"name": "MODEL_PATH", "value": "/models/fraud"}],
    "readinessProbe": {"httpGet": {"path": "/ok", "port": 8080}, "initialDelaySeconds": 7, "periodSeconds": 3},
    "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
}  # fmt: skip


@dataclass(kw_only=True)
class Neighbours:
    """What a team finds that adds a cluster in which others run `theirs` already."""

    room: Room
    where: Target
    owner: Actor
    viewer: Actor
    stranger: Actor
    variant: Variant
    theirs: str

    def get(self, kind: Kind, name: str = "") -> Object:
        return self.room.api.get(kind, name or self.theirs, self.room.namespace)

    def create(self, kind: Kind, document: Object) -> None:
        self.room.api.create(kind, document, self.room.namespace)

    def make(self, replicas: int = 2, **changed: Any) -> None:
        """As somebody does with kubectl: a Deployment, and a Service in front of it."""
        labels = {"app": self.theirs}
        pod = {"containers": [SERVER]} | changed
        self.create(DEPLOYMENT, {
            "metadata": {"name": self.theirs, "labels": labels},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels | {"tier": "models"}}, "spec": pod},
            },
        })  # fmt: skip
        ports = [{"name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
        self.create(
            SERVICE,
            {
                "metadata": {"name": self.theirs, "labels": labels},
                "spec": {"selector": labels, "ports": ports},
            },
        )

    def scale_between(self, low: int, high: int) -> None:
        aim = {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.theirs}
        metric = {
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
        }
        self.create(HPA, {
            "metadata": {"name": self.theirs},
            "spec": {"scaleTargetRef": aim, "minReplicas": low, "maxReplicas": high, "metrics": [metric]},
        })  # fmt: skip

    def take_in(self, *, seen: bool = True) -> Deployment:
        row, _ = imports.import_deployment(
            self.owner,
            self.where,
            source=self.theirs,
            name=imports.proposed_name(self.theirs),
            variant=self.variant,
            stack="fastapi",
        )
        if seen:  # and settled: what a cluster's own controllers write is no news then
            self.until(self.is_ready)
            self.until(lambda: bool(self.seen(row).replicas))
        return row

    def is_ready(self) -> bool:
        theirs = self.get(DEPLOYMENT)
        return bool(theirs.get("status", {}).get("readyReplicas", 0) == theirs["spec"]["replicas"])

    def take_over(self, row: Deployment) -> Rollout:
        revision = row.revisions.get(number=1)
        etag = preview.preview(self.row(row), revision).etag
        rollout = services.roll_out(self.owner, self.row(row), revision, etag=etag)
        self.until(lambda: self.state(row) == "taken")
        rollout.refresh_from_db()
        return rollout

    def row(self, row: Deployment) -> Deployment:
        return selectors.deployments(self.owner).get(pk=row.pk)

    def seen(self, row: Deployment) -> Any:
        return selectors.status(self.row(row)) or self.room.target.origins.observe(
            self.row(row).imported_from.value, key=row.key
        )

    def state(self, row: Deployment) -> str:
        return ImportedFrom.objects.get(deployment=row).state

    def step(self) -> None:
        time.sleep(0.05)
        for key in Deployment.objects.filter(target=self.where).values_list("pk", flat=True):
            reconciler.reconcile(key)

    def until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + WITHIN_S
        while not done():
            assert time.monotonic() < end, (
                ImportedFrom.objects.values(),
                Rollout.objects.values("state", "message"),
            )
            self.step()

    def browser(self, actor: Actor) -> Client:
        client = Client()
        assert actor.user is not None
        client.force_login(actor.user)
        return client

    def api(self, actor: Actor, path: str, body: object = None) -> Any:
        client = self.browser(actor)
        if body is None:
            return client.get(f"/api/v1/{path}")
        return client.post(f"/api/v1/{path}", body, content_type="application/json")


@pytest.fixture(params=["kubernetes_fake", pytest.param("kubernetes_real", marks=pytest.mark.processes)])
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Neighbours]:
    yield from _neighbours(request.getfixturevalue(request.param), monkeypatch)


@pytest.fixture
def fake(kubernetes_fake: Room, monkeypatch: pytest.MonkeyPatch) -> Iterator[Neighbours]:
    yield from _neighbours(kubernetes_fake, monkeypatch)


def _neighbours(room: Room, monkeypatch: pytest.MonkeyPatch) -> Iterator[Neighbours]:
    monkeypatch.setattr(targets, "of", lambda row: room.target)
    monkeypatch.setattr(handover, "DRAIN_S", 0.2)
    owner, viewer, stranger = factories.three_people(factories.team())
    where = Target.objects.create(
        team=owner.team, name="prod", kind="kubernetes", settings={"namespace": room.namespace}
    )
    variant = factories.version(factories.model(owner.team, "fraud")).variants.get(number=0)
    blob = storage.put([f"bytes of {variant.pk}".encode()], limit_bytes=100)
    Artifact.objects.filter(pk=variant.artifact_id).update(sha256=blob.sha256)
    variant.refresh_from_db()
    found = Neighbours(
        room=room,
        where=where,
        owner=owner,
        viewer=viewer,
        stranger=stranger,
        variant=variant,
        theirs=f"theirs-{where.pk}",
    )
    yield found
    if room.fake is not None:
        room.fake.cluster.scripts.clear()
    for row in Deployment.objects.filter(target=where):
        room.target.delete(row.key)
        room.until_gone(row.key)
    for kind in (HPA, SERVICE, DEPLOYMENT):
        room.api.delete(kind, found.theirs, room.namespace)


def test_what_others_run_is_listed_with_who_calls_scales_and_keeps_it(cluster: Neighbours) -> None:
    cluster.make()
    cluster.scale_between(2, 9)
    mine = {one.name: one for one in imports.importable(cluster.where)}
    one = mine[cluster.theirs]
    assert one.images == ("registry.example.com/fraud:7",)
    assert one.services == (cluster.theirs,)
    assert one.scaled_by == f"HorizontalPodAutoscaler {cluster.theirs}, 2 to 9"
    row = cluster.take_in()
    assert cluster.theirs not in {one.name for one in imports.importable(cluster.where)}
    cluster.take_over(row)
    # Ours is none of theirs.
    assert names.object_name(row.name) not in {one.name for one in imports.importable(cluster.where)} - {
        cluster.theirs
    }


def test_it_is_read_as_a_revision_and_what_that_cannot_say_is_said(cluster: Neighbours) -> None:
    cluster.make(serviceAccountName="fraud-account", nodeSelector={"pool": "cpu"})
    cluster.scale_between(2, 9)
    row = cluster.take_in(seen=False)
    spec = row.revisions.get().spec
    assert spec["cluster"]["resources"]["cpu"] == "500m"
    assert (spec["cluster"]["resources"]["memory"], spec["cluster"]["resources"]["memory_limit"]) == (
        "1Gi",
        "2Gi",
    )
    assert (spec["cluster"]["probes"]["initial_delay_s"], spec["cluster"]["probes"]["period_s"]) == (7, 3)
    assert spec["cluster"]["node_selector"] == {"pool": "cpu"}
    assert spec["cluster"]["autoscaler"] == "hpa"
    assert (spec["autoscaling"]["minReplicas"], spec["autoscaling"]["maxReplicas"]) == (2, 9)
    left = " ".join(row.imported_from.value.left_behind)
    for word in ("registry.example.com/fraud:7", "MODEL_PATH", "fraud-account"):
        assert word in left


def test_until_it_is_taken_over_nothing_of_it_is_written(cluster: Neighbours) -> None:
    cluster.make()
    cluster.until(cluster.is_ready)
    before = [cluster.get(kind)["metadata"]["resourceVersion"] for kind in (DEPLOYMENT, SERVICE)]
    row = cluster.take_in()
    cluster.until(
        lambda: selectors.health_of(cluster.row(row)) == "read_only" and cluster.seen(row).ready() == 2
    )
    for _ in range(3):
        cluster.step()
    assert [cluster.get(kind)["metadata"]["resourceVersion"] for kind in (DEPLOYMENT, SERVICE)] == before
    assert not cluster.room.has(row.key)
    assert cluster.row(row).replicas == 2
    page = cluster.browser(cluster.owner).get(row.get_absolute_url()).content.decode()
    assert "Others run it: Slipway looks, and writes nothing" in page
    assert "others run it, 2 of 2 ready" in page
    with pytest.raises(Conflict, match="no live revision"):
        services.scale(cluster.owner, cluster.row(row), replicas=3)
    services.remove_deployment(cluster.owner, row)
    cluster.until(lambda: not Deployment.objects.filter(pk=row.pk).exists())
    assert [cluster.get(kind)["metadata"]["resourceVersion"] for kind in (DEPLOYMENT, SERVICE)] == before


def test_taking_over_shows_first_what_it_changes_and_then_leads_its_callers_over(cluster: Neighbours) -> None:
    cluster.make()
    row = cluster.take_in()
    shown = preview.preview(cluster.row(row), row.revisions.get())
    changed = {(one.kind, each.path, each.after) for one in shown.theirs for each in one.changes}
    assert ("Deployment", "spec.replicas", 0) in changed
    assert ("Service", f"spec.selector.{names.KEY}", row.key) in changed
    page = cluster.browser(cluster.owner).get(f"{row.get_absolute_url()}revisions/1/plan/").content.decode()
    assert f"spec.selector.{names.KEY}" in page
    assert cluster.take_over(row).state == "succeeded"
    service = cluster.get(SERVICE)["spec"]
    assert service["selector"] == {names.KEY: row.key}
    assert [(one["port"], one["targetPort"]) for one in service["ports"]] == [(80, "http")]
    assert cluster.get(DEPLOYMENT)["spec"]["replicas"] == 0
    cluster.until(lambda: selectors.health_of(cluster.row(row)) == "healthy")
    assert cluster.seen(row).address == f"http://{cluster.theirs}-slipway.{cluster.room.namespace}.svc"


def test_giving_it_back_brings_its_replicas_before_its_callers_and_takes_ours_away(
    cluster: Neighbours,
) -> None:
    cluster.make()
    row = cluster.take_in()
    before = cluster.get(SERVICE)["spec"]
    cluster.take_over(row)
    handover.give_back(cluster.owner, cluster.row(row))
    led_back_to: list[int] = []
    while cluster.state(row) != "read_only":
        cluster.step()
        if names.KEY not in cluster.get(SERVICE)["spec"]["selector"] and not led_back_to:
            led_back_to.append(cluster.get(DEPLOYMENT).get("status", {}).get("readyReplicas", 0))
    assert led_back_to == [2]
    after = cluster.get(SERVICE)["spec"]
    assert (after["selector"], after["ports"]) == (before["selector"], before["ports"])
    cluster.until(lambda: not cluster.room.has(row.key))
    cluster.until(lambda: selectors.health_of(cluster.row(row)) == "read_only")
    assert cluster.row(row).live_revision is None
    # And once more, with what was noted anew.
    cluster.take_over(row)
    assert cluster.get(SERVICE)["spec"]["selector"] == {names.KEY: row.key}


def test_callers_that_were_led_here_see_a_rollout_as_the_others_do(cluster: Neighbours) -> None:
    """Blue/green: all requests move at once, also those through the Service that was there before."""
    cluster.make()
    row = cluster.take_in()
    cluster.take_over(row)
    spec = specs.read_spec({"rollout": {"strategy": "blue_green", "hold_s": 0}, "threads": 2}, cluster.where)
    revision = services.add_revision(cluster.owner, cluster.row(row), variant=cluster.variant, spec=spec)
    rollout = services.roll_out(cluster.owner, cluster.row(row), revision, etag=None)
    led = set()
    while Rollout.objects.get(pk=rollout.pk).finished_at is None:
        cluster.step()
        own, theirs = (cluster.get(SERVICE, name)["spec"]["selector"] for name in (row.name, cluster.theirs))
        assert theirs == own
        led.add(own.get(names.SLOT))
    assert Rollout.objects.get(pk=rollout.pk).state == "succeeded"
    assert {names.MAIN, names.CANDIDATE} <= led
    assert cluster.get(SERVICE)["spec"]["selector"] == {names.KEY: row.key}


def test_a_take_over_that_fails_leaves_theirs_untouched_and_nothing_of_ours(fake: Neighbours) -> None:
    fake.make()
    row = fake.take_in()
    before = [fake.get(kind)["metadata"]["resourceVersion"] for kind in (DEPLOYMENT, SERVICE)]
    fake.room.kubelet.plays[row.key, 1] = kubelet.no_image
    rollout = services.roll_out(fake.owner, fake.row(row), row.revisions.get(), etag=None)
    fake.until(
        lambda: (
            fake.room.has(row.key) and any(one.reason for one in fake.room.target.observe(row.key).replicas)
        )
    )
    rollout.deployment.rollouts.update(progressed_at=rollout.created_at.replace(year=2020))
    fake.until(lambda: Rollout.objects.get(pk=rollout.pk).state == "failed")
    fake.until(lambda: not fake.room.has(row.key))
    assert [fake.get(kind)["metadata"]["resourceVersion"] for kind in (DEPLOYMENT, SERVICE)] == before
    assert selectors.health_of(fake.row(row)) == "read_only"


class _Dead(BaseException):
    """What no code catches."""


def test_a_worker_killed_between_any_two_calls_leads_callers_to_one_side_whole(
    fake: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th request of the way there and of the way home is the last of its worker, and another carries on."""
    fake.make()
    row = fake.take_in()
    real = fake.room.api._call

    def dying(after: int) -> Callable[..., bytes]:
        left = iter(range(after))

        def call(*args: Any, **how: Any) -> bytes:
            if next(left, None) is None:
                raise _Dead
            return real(*args, **how)

        return call

    def killed(nth: int, done: Callable[[], bool]) -> None:
        with monkeypatch.context() as patch, suppress(_Dead):
            patch.setattr(fake.room.api, "_call", dying(nth))
            fake.until(done)
        fake.until(done)

    for nth in (3, 20, 26, 32, 45, 60):
        services.roll_out(fake.owner, fake.row(row), row.revisions.get(), etag=None)
        fake.until(lambda: fake.state(row) != "read_only")
        killed(nth, lambda: fake.state(row) == "taken")
        assert fake.get(SERVICE)["spec"]["selector"] == {names.KEY: row.key}
        assert fake.get(DEPLOYMENT)["spec"]["replicas"] == 0
        handover.give_back(fake.owner, fake.row(row))
        killed(nth, lambda: fake.state(row) == "read_only")
        assert fake.get(SERVICE)["spec"]["selector"] == {"app": fake.theirs}
        assert fake.get(DEPLOYMENT)["spec"]["replicas"] == 2


def test_a_writer_that_was_overtaken_leads_no_caller_away(fake: Neighbours) -> None:
    fake.make()
    row = fake.take_in()
    fake.take_over(row)
    late = fake.row(row)
    origin = ImportedFrom.objects.get(deployment=row).value
    handover.give_back(fake.owner, fake.row(row))
    fake.until(lambda: fake.state(row) == "read_only")
    with pytest.raises(StaleGeneration):
        fake.room.target.origins.divert(origin, key=row.key, generation=late.generation)
    with pytest.raises(StaleGeneration):
        fake.room.target.origins.resize(origin, 0, key=row.key, generation=late.generation)
    assert fake.get(SERVICE)["spec"]["selector"] == {"app": fake.theirs}


def test_what_was_deleted_cannot_be_given_back_to_and_that_is_said(fake: Neighbours) -> None:
    fake.make()
    row = fake.take_in()
    fake.take_over(row)
    handover.give_back(fake.owner, fake.row(row))
    fake.room.api.delete(DEPLOYMENT, fake.theirs, fake.room.namespace)
    fake.until(lambda: fake.state(row) == "taken")
    page = fake.browser(fake.owner).get(row.get_absolute_url()).content.decode()
    assert "It could not be given back" in page
    assert f"There is no Deployment {fake.theirs} of others" in page
    with pytest.raises(Conflict, match="cannot be given back"):
        handover.give_back(fake.owner, fake.row(row))
    assert selectors.health_of(fake.row(row)) == "healthy"


def test_another_one_of_its_name_is_not_taken_for_it(fake: Neighbours) -> None:
    fake.make()
    row = fake.take_in()
    fake.room.api.delete(DEPLOYMENT, fake.theirs, fake.room.namespace)
    fake.room.api.delete(SERVICE, fake.theirs, fake.room.namespace)
    fake.make()
    with pytest.raises(NotFound, match="of others"):
        preview.preview(fake.row(row), row.revisions.get())
    Deployment.objects.filter(pk=row.pk).update(reconcile_after="2020-01-01T00:00Z")
    fake.until(lambda: fake.row(row).observed == {})
    page = fake.browser(fake.owner).get(row.get_absolute_url()).content.decode()
    assert "which is gone" in page


@pytest.mark.parametrize(
    ("annotations", "ports", "code"),
    [
        ({"argocd.argoproj.io/tracking-id": "x"}, None, "kept_by_another_tool"),
        ({}, [{"name": "dns", "port": 53, "protocol": "UDP"}], "service_not_http"),
        ({}, [{"name": "web", "port": 80}, {"name": "grpc", "port": 81}], "several_ports"),
    ],
)
def test_what_stands_in_the_way_of_taking_over_is_found_before(
    fake: Neighbours, annotations: dict[str, str], ports: Any, code: str
) -> None:
    fake.make()
    change: Object = {"metadata": {"annotations": annotations}} | (
        {"spec": {"ports": ports}} if ports else {}
    )
    fake.room.api.merge(SERVICE, fake.theirs, fake.room.namespace, change)
    row = fake.take_in()
    assert code in {one.code for one in preview.preview(fake.row(row), row.revisions.get()).findings}


def test_a_service_that_leads_to_others_as_well_is_told(fake: Neighbours) -> None:
    fake.make()
    beside = fake.get(DEPLOYMENT)
    beside = {"metadata": {"name": f"{fake.theirs}-beside"}, "spec": beside["spec"] | {"replicas": 0}}
    fake.create(DEPLOYMENT, beside)
    row = fake.take_in()
    found = {one.code: one for one in preview.preview(fake.row(row), row.revisions.get()).findings}
    assert found["service_shared"].title == f"Service {fake.theirs} leads to {fake.theirs}-beside as well."
    fake.room.api.delete(DEPLOYMENT, f"{fake.theirs}-beside", fake.room.namespace)


def test_pages_and_api_import_take_over_and_give_back(fake: Neighbours) -> None:
    fake.make()
    browser = fake.browser(fake.owner)
    assert fake.theirs in browser.get("/targets/prod/import/").content.decode()
    form = browser.get(f"/targets/prod/import/{fake.theirs}/").content.decode()
    assert "MODEL_PATH" in form
    assert "500m" in form
    sent = {"name": "Not a name", "variant": f"fraud/{fake.variant.version.number}/0", "stack": "fastapi"}
    refused = browser.post(f"/targets/prod/import/{fake.theirs}/", sent)
    assert "name" in refused.context["form"].errors
    refused = browser.post(f"/targets/prod/import/{fake.theirs}/", sent | {"name": fake.theirs})
    assert "Theirs is called so." in refused.content.decode()
    made = browser.post(f"/targets/prod/import/{fake.theirs}/", sent | {"name": "fraud"}, follow=True)
    assert "“fraud” is imported" in made.content.decode()
    again = browser.post(f"/targets/prod/import/{fake.theirs}/", sent | {"name": "fraud-2"})
    assert "was imported already" in again.content.decode()
    assert not Deployment.objects.filter(name="fraud-2").exists()
    document = fake.api(fake.viewer, "deployments/fraud/").json()
    assert (document["health"], document["imported_from"]["name"]) == ("read_only", fake.theirs)
    row = Deployment.objects.get(name="fraud")
    fake.take_over(row)
    assert "Give back to" in browser.get("/deployments/fraud/settings/").content.decode()
    answer = fake.api(fake.owner, "deployments/fraud/give-back/", {})
    assert (answer.status_code, answer.json()["imported_from"]["state"]) == (202, "returning")
    assert fake.api(fake.owner, "deployments/fraud/give-back/", {}).status_code == 409
    with pytest.raises(Conflict, match="being led over"):
        services.roll_out(fake.owner, fake.row(row), row.revisions.get(), etag=None)
    verbs = AuditEvent.objects.filter(object_name="fraud").values_list("verb", flat=True)
    assert {"imported", "gave back"} <= set(verbs)


def test_the_api_imports_what_it_lists(fake: Neighbours) -> None:
    fake.make()
    listed = fake.api(fake.viewer, "targets/prod/imports/").json()["items"]
    assert fake.theirs in {one["name"] for one in listed}
    body = {"deployment": fake.theirs, "model": "fraud", "version": fake.variant.version.number}
    assert fake.api(fake.viewer, "targets/prod/imports/", body).status_code == 403
    assert fake.api(fake.stranger, "targets/prod/imports/").status_code == 404
    answer = fake.api(fake.owner, "targets/prod/imports/", body)
    assert (answer.status_code, answer.json()["name"]) == (201, f"{fake.theirs}-slipway")
    again = fake.api(fake.owner, "targets/prod/imports/", body | {"name": "other"})
    assert (again.status_code, again.json()["code"]) == (409, "already_imported")
    gone = fake.api(fake.owner, "targets/prod/imports/", body | {"deployment": "nothing-there"})
    assert gone.status_code == 404


def test_a_machine_has_nothing_to_import(fake: Neighbours) -> None:
    Target.objects.filter(pk=fake.where.pk).update(kind="local")
    assert fake.api(fake.owner, "targets/prod/imports/").status_code == 422
