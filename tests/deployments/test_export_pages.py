"""What a plan says of a cluster's objects, and what can be taken away, on the page and by the API."""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from django.test import Client

from controlplane.accounts.access import Actor
from controlplane.core import storage
from controlplane.registry.models import Artifact
from deployments import services, specs, targets, wishes
from deployments.domain.cluster_strategy import Part
from deployments.domain.plan import Change, Op, Plan
from deployments.models import Deployment, Revision
from deployments.targets.kubernetes.opening import pull_token
from deployments.views import revisions
from tests import factories
from tests.deployments import clusters
from tests.deployments.clusters import Cluster
from tests.deployments.world import World

pytestmark = pytest.mark.django_db
ONE = "/deployments/scorer/"
REVISION = "/api/v1/deployments/scorer/revisions/1/"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with clusters.running(monkeypatch) as one:
        yield one


@pytest.fixture
def deployment(cluster: Cluster) -> Deployment:
    return cluster.deployment()


def revision(cluster: Cluster, of: Deployment, **spec: Any) -> Revision:
    model = cluster.owner.team.models.first() or factories.model(cluster.owner.team, "scorer")
    variant = factories.version(model).variants.get(number=0)
    blob = storage.put([f"bytes of {variant.pk}".encode()], limit_bytes=100)
    Artifact.objects.filter(pk=variant.artifact_id).update(sha256=blob.sha256)
    variant.refresh_from_db()
    return services.add_revision(cluster.owner, of, variant=variant, spec=specs.read_spec(spec))


def browser(actor: Actor) -> Client:
    assert actor.user is not None
    client = Client()
    client.force_login(actor.user)
    return client


def apply(deployment: Deployment, row: Revision, *, generation: int = 1) -> None:
    wish = wishes.wish(deployment, [Part(revision=row.number, replicas=1)], generation=generation)
    targets.of(deployment.target).apply(wish)


def test_a_plan_for_a_cluster_shows_each_object(cluster: Cluster, deployment: Deployment) -> None:
    revision(cluster, deployment)
    answer = browser(cluster.viewer).get(f"{ONE}revisions/1/plan/")
    page = answer.content.decode()
    assert answer.status_code == 200
    for kind in ("Deployment", "Service", "HorizontalPodAutoscaler", "NetworkPolicy"):
        assert f'id="changes-{kind}-scorer"' in page
        assert f'id="yaml-{kind}-scorer"' in page
    assert "image: slipway/replica-fastapi" in page
    assert pull_token(deployment.key) not in page


def test_what_is_applied_has_no_changes_and_another_revision_has_its_own(
    cluster: Cluster, deployment: Deployment
) -> None:
    first = revision(cluster, deployment)
    apply(deployment, first)
    client = browser(cluster.owner)
    same = client.get(f"{REVISION}plan/").json()
    assert same["objects"] == [], "neither the generation nor the record of the wish is a change"
    assert "Every object is as it would be applied." in client.get(f"{ONE}revisions/1/plan/").content.decode()
    revision(cluster, deployment, threads=3)
    other = client.get(REVISION.replace("/1/", "/2/") + "plan/").json()
    changed = {(one["kind"], one["name"]): one["changes"] for one in other["objects"]}
    threads = [
        one for one in changed["Deployment", "scorer"] if one["path"].endswith("env.OMP_NUM_THREADS.value")
    ]
    assert [(one["op"], one["before"], one["after"]) for one in threads] == [("change", "1", "3")]
    assert ("Service", "scorer") not in changed
    assert ("ConfigMap", "scorer-slipway") not in changed


def test_the_api_gives_the_objects_without_what_is_secret(cluster: Cluster, deployment: Deployment) -> None:
    revision(cluster, deployment)
    answer = browser(cluster.owner).get(f"{REVISION}plan/")
    manifests = {one["kind"]: one for one in answer.json()["manifests"]}
    assert manifests["Deployment"]["metadata"] == manifests["Deployment"]["metadata"] | {
        "name": "scorer", "namespace": clusters.NAMESPACE,
    }  # fmt: skip
    assert manifests["Secret"]["data"] == {"token": "…"}
    assert pull_token(deployment.key) not in answer.content.decode()


def test_a_plan_that_is_too_long_is_cut_and_says_where_the_rest_is() -> None:
    changes = tuple(
        Change(path=f"Deployment big.spec.f{number}", op=Op.ADD, before=None, after=1)
        for number in range(revisions.MOST_CHANGES + 5)
    )
    manifest = {"kind": "Deployment", "metadata": {"name": "big"}, "x": "a" * revisions.LONGEST_TEXT}
    plan = Plan(diff=changes, live_generation=None, live_digest="", manifests=(manifest,))
    shown = revisions._objects(plan)
    assert shown is not None
    (only,) = shown["changes"]
    assert (len(only["shown"]), only["more"]) == (revisions.MOST_CHANGES, 5)
    assert [one["text"] for one in shown["texts"]] == [""]


def test_a_plan_for_another_target_is_as_it_was(world: World) -> None:
    world.revision()
    client = world.browser(world.owner)
    page = client.get(f"{ONE}revisions/1/plan/").content.decode()
    assert "In the cluster" not in page
    assert "Export" not in page
    plan = client.get(f"{REVISION}plan/").json()
    assert (plan["objects"], plan["manifests"]) == ([], [])


def test_a_revision_can_be_taken_away_in_three_forms(cluster: Cluster, deployment: Deployment) -> None:
    revision(cluster, deployment)
    client = browser(cluster.viewer)
    page = client.get(f"{ONE}revisions/1/plan/").content.decode()
    files = {}
    for form in ("yaml", "kustomize", "helm"):
        assert f'href="{REVISION}manifests/?as={form}"' in page
        answer = client.get(f"{REVISION}manifests/?as={form}")
        assert answer.status_code == 200
        files[answer["Content-Disposition"].partition('"')[2].rstrip('"')] = answer.content
    assert list(files) == ["scorer-r1.yaml", "scorer-r1-kustomize.zip", "scorer-r1-chart.tgz"]
    text, zipped, chart = files.values()
    kinds = {one["kind"] for one in yaml.safe_load_all(text)}
    assert {"Deployment", "Service", "Secret", "HorizontalPodAutoscaler"} <= kinds
    assert "scorer/kustomization.yaml" in zipfile.ZipFile(io.BytesIO(zipped)).namelist()
    with tarfile.open(fileobj=io.BytesIO(chart)) as archive:
        assert "scorer/Chart.yaml" in archive.getnames()
    assert client.get(f"{REVISION}manifests/").content == text, "YAML without a word"
    assert pull_token(deployment.key).encode() not in text


def test_an_export_asks_nothing_of_the_cluster(cluster: Cluster, deployment: Deployment) -> None:
    revision(cluster, deployment)
    with cluster.fake.gone():
        assert browser(cluster.owner).get(f"{REVISION}manifests/").status_code == 200


def test_who_may_not_see_the_deployment_gets_no_export(cluster: Cluster, deployment: Deployment) -> None:
    revision(cluster, deployment)
    assert browser(cluster.stranger).get(f"{REVISION}manifests/").status_code == 404


def test_another_form_and_another_target_are_refused_in_a_sentence(
    cluster: Cluster, deployment: Deployment, world: World
) -> None:
    revision(cluster, deployment)
    unknown = browser(cluster.owner).get(f"{REVISION}manifests/?as=jsonnet")
    assert (unknown.status_code, unknown.json()["detail"]) == (400, "Use one of: yaml, kustomize, helm.")
    world.revision()
    local = world.browser(world.owner).get(f"{REVISION}manifests/")
    assert (local.status_code, local.json()["code"]) == (409, "no_cluster")
    assert "is no cluster, so there are no objects to export" in local.json()["title"]
