"""What others changed in a cluster: it is shown with who did it, and put back or taken over by who may."""

import html
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import pytest
from django.utils import timezone

from controlplane.accounts.models import AuditEvent
from controlplane.core import storage
from controlplane.registry.models import Artifact
from deployments import services, specs, targets, wishes
from deployments.domain import cluster_words
from deployments.domain.cluster_strategy import Part
from deployments.models import Deployment
from deployments.targets.kubernetes import kinds
from deployments.targets.kubernetes.api import Api
from deployments.targets.kubernetes.target import KubernetesTarget
from deployments.targets.port import Unreachable
from tests import factories
from tests.deployments import clusters
from tests.deployments.clusters import NAMESPACE, Cluster

pytestmark = pytest.mark.django_db
ONE = "/deployments/scorer/"
API = "/api/v1/deployments/scorer/"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with clusters.running(monkeypatch) as one:
        yield one


@pytest.fixture
def serving(cluster: Cluster) -> Deployment:
    row = cluster.deployment()
    variant = factories.version(factories.model(cluster.owner.team, "scorer")).variants.get(number=0)
    blob = storage.put([b"bytes of a variant"], limit_bytes=100)
    Artifact.objects.filter(pk=variant.artifact_id).update(sha256=blob.sha256)
    variant.refresh_from_db()
    revision = services.add_revision(
        cluster.owner, row, variant=variant, spec=specs.read_spec({}, cluster.row)
    )
    target = targets.of(cluster.row)
    target.apply(wishes.wish(row, [Part(revision=1, replicas=2)], generation=1))
    Deployment.objects.filter(pk=row.pk).update(
        live_revision=revision,
        generation=1,
        replicas=2,
        observed=target.observe(row.key).to_json(),
        observed_at=timezone.now(),
    )
    row.refresh_from_db()
    return row


def edit(cluster: Cluster, kind: kinds.Kind, change: dict[str, Any]) -> None:
    """As a person with kubectl."""
    other = Api(cluster.api.connection)
    other.manager = "kubectl-edit"
    other.merge(kind, "scorer", NAMESPACE, change)


def said(answer: Any) -> str:
    return html.unescape(answer.content.decode())


def test_nothing_is_shown_where_nobody_changed_anything(cluster: Cluster, serving: Deployment) -> None:
    client = cluster.browser(cluster.viewer)
    assert "Nothing was changed by others" in said(client.get(f"{ONE}drift/"))
    assert said(client.get(f"{ONE}drift/?part=summary")).strip() == ""
    assert client.get(f"{API}drift/").json() == {"items": [], "next": None}


def test_what_was_changed_is_shown_with_who_changed_it(cluster: Cluster, serving: Deployment) -> None:
    edit(cluster, kinds.HPA, {"spec": {"maxReplicas": 7}})
    client = cluster.browser(cluster.viewer)
    page = said(client.get(f"{ONE}drift/"))
    for part in ("HorizontalPodAutoscaler", "spec.maxReplicas", ">20<", ">7<", "kubectl-edit"):
        assert part in page
    assert "Put back" not in page, "a viewer looks"
    assert "kubectl-edit changed 1 field." in said(client.get(f"{ONE}drift/?part=summary"))
    assert client.get(f"{API}drift/").json()["items"] == [
        {
            "object": "HorizontalPodAutoscaler scorer",
            "path": "spec.maxReplicas",
            "ours": 20,
            "live": 7,
            "owner": "kubectl-edit",
        }
    ]


def test_the_overview_does_not_wait_for_the_cluster(
    cluster: Cluster, serving: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(row: object) -> NoReturn:
        raise AssertionError("the overview asked the cluster")

    monkeypatch.setattr(targets, "of", asked)
    page = said(cluster.browser(cluster.viewer).get(ONE))
    assert f'hx-get="{ONE}drift/?part=summary"' in page
    assert 'hx-trigger="load' in page


def test_putting_back_is_an_engineer_s_and_is_audited(cluster: Cluster, serving: Deployment) -> None:
    edit(cluster, kinds.HPA, {"spec": {"maxReplicas": 7}})
    cluster.browser(cluster.viewer).post(f"{ONE}drift/put-back/")
    assert cluster.browser(cluster.stranger).post(f"{ONE}drift/put-back/").status_code == 404
    assert cluster.browser(cluster.stranger).get(f"{ONE}drift/").status_code == 404
    assert cluster.browser(cluster.viewer).post(f"{API}drift/put-back/").status_code == 403
    assert cluster.api.get(kinds.HPA, "scorer", NAMESPACE)["spec"]["maxReplicas"] == 7
    page = said(cluster.browser(cluster.owner).post(f"{ONE}drift/put-back/", follow=True))
    assert "1 field put back." in page
    assert cluster.api.get(kinds.HPA, "scorer", NAMESPACE)["spec"]["maxReplicas"] == 20
    event = AuditEvent.objects.get(verb="put back what others changed of")
    assert event.details == {
        "fields": ["HorizontalPodAutoscaler scorer spec.maxReplicas"],
        "owners": ["kubectl-edit"],
    }
    again = cluster.browser(cluster.owner).post(f"{API}drift/put-back/")
    assert (again.status_code, again.json()["items"]) == (200, [])
    assert AuditEvent.objects.filter(verb__startswith="put back").count() == 1


def test_their_bounds_become_a_revision_that_nothing_rolls_out_yet(
    cluster: Cluster, serving: Deployment
) -> None:
    edit(cluster, kinds.HPA, {"spec": {"minReplicas": 3, "maxReplicas": 7}})
    client = cluster.browser(cluster.owner)
    assert "adds a revision with their bounds, 3 to 7 replicas" in said(client.get(f"{ONE}drift/"))
    answer = client.post(f"{ONE}drift/take-over/")
    assert answer["Location"] == f"{ONE}revisions/2/plan/"
    second, first = serving.revisions.all()
    assert (second.spec["autoscaling"]["minReplicas"], second.spec["autoscaling"]["maxReplicas"]) == (3, 7)
    bounds = {"minReplicas": 2, "maxReplicas": 20}
    assert second.spec | {"autoscaling": second.spec["autoscaling"] | bounds} == first.spec
    assert second.variant == first.variant
    assert not serving.rollouts.exists()


def test_what_no_revision_can_say_is_offered_to_be_put_back_alone(
    cluster: Cluster, serving: Deployment
) -> None:
    edit(cluster, kinds.SERVICE, {"spec": {"type": "NodePort"}})
    client = cluster.browser(cluster.owner)
    page = said(client.get(f"{ONE}drift/"))
    assert "no, no revision can say it" in page
    assert "it can only be put back" in page
    assert "Take over" not in page
    page = said(client.post(f"{ONE}drift/take-over/", follow=True))
    assert "Nothing that was changed can be taken over." in page
    assert serving.revisions.count() == 1


def test_a_deleted_object_is_drift_too(cluster: Cluster, serving: Deployment) -> None:
    cluster.api.delete(kinds.HPA, "scorer", NAMESPACE)
    client = cluster.browser(cluster.owner)
    page = said(client.get(f"{ONE}drift/"))
    assert "the whole object" in page
    assert "deleted" in page
    client.post(f"{ONE}drift/put-back/")
    assert cluster.api.get(kinds.HPA, "scorer", NAMESPACE)["spec"]["maxReplicas"] == 20


def test_a_secret_is_never_shown(cluster: Cluster, serving: Deployment) -> None:
    secret = next(iter(cluster.api.list(kinds.SECRET, NAMESPACE).items))
    name, kept = secret["metadata"]["name"], next(iter(secret["data"].values()))
    other = Api(cluster.api.connection)
    other.manager = "kubectl-edit"
    theirs = "bm90IHRoZSB0b2tlbg=="
    other.merge(kinds.SECRET, name, NAMESPACE, {"data": dict.fromkeys(secret["data"], theirs)})
    answers = [
        cluster.browser(cluster.owner).get(f"{ONE}drift/"),
        cluster.browser(cluster.owner).get(f"{API}drift/"),
    ]
    for answer in answers:
        assert "Secret" in said(answer)
        assert kept not in said(answer)
        assert theirs not in said(answer)


def test_nothing_is_put_back_or_taken_over_while_a_rollout_moves(
    cluster: Cluster, serving: Deployment
) -> None:
    edit(cluster, kinds.HPA, {"spec": {"maxReplicas": 7}})
    serving.rollouts.create(
        to_revision=serving.revisions.get(), state="running", progressed_at=timezone.now()
    )
    client = cluster.browser(cluster.owner)
    page = said(client.get(f"{ONE}drift/"))
    assert "takes over what it needs" in page
    assert 'data-dialog="put-back-drift"' not in page
    for verb in ("put-back", "take-over"):
        assert "is under way" in said(client.post(f"{ONE}drift/{verb}/", follow=True))
    answer = client.post(f"{API}drift/put-back/")
    assert (answer.status_code, answer.json()["code"]) == (409, "rollout_active")
    assert cluster.api.get(kinds.HPA, "scorer", NAMESPACE)["spec"]["maxReplicas"] == 7


def test_a_cluster_that_does_not_answer_leaves_it_unknown(
    cluster: Cluster, serving: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: KubernetesTarget, key: str) -> NoReturn:
        raise Unreachable("cluster_unreachable", "The cluster does not answer.", "Nothing listens there.")

    monkeypatch.setattr(KubernetesTarget, "drift", away)
    client = cluster.browser(cluster.viewer)
    answer = client.get(f"{ONE}drift/")
    assert answer.status_code == 503
    assert "is not known until the cluster answers" in said(answer)
    summary = client.get(f"{ONE}drift/?part=summary")
    assert summary.status_code == 200
    assert "is not known now" in said(summary)
    assert client.get(f"{API}drift/").status_code == 503


def test_a_deployment_on_a_machine_has_no_such_page(cluster: Cluster) -> None:
    here = cluster.owner.team.targets.get(name="this-machine")
    services.create_deployment(cluster.owner, name="local", target=here)
    client = cluster.browser(cluster.owner)
    assert client.get("/deployments/local/drift/").status_code == 404
    assert ">Drift<" not in said(client.get("/deployments/local/"))


def test_the_overview_says_where_pods_run_and_what_the_autoscaler_says(
    cluster: Cluster, serving: Deployment
) -> None:
    now = datetime.now(UTC)
    pod = {
        "name": "scorer-abc", "revision": 1, "state": "ready", "url": "", "pid": None, "restarts": 0,
        "started_at": now.isoformat(), "ready_at": now.isoformat(), "reason": "", "log_tail": [], "node": "node-7",
        "phases": {
            name: (now + timedelta(seconds=after)).isoformat()
            for name, after in {"created": 0, "scheduled": 2, "started": 16, "ready": 47}.items()
        },
    }  # fmt: skip
    hpa = {
        "min": 2, "max": 20, "current": 2, "desired": 5,
        "conditions": [
            {"type": "AbleToScale", "status": "True", "message": "ready", "lastTransitionTime": ""},
            {"type": "ScalingActive", "status": "False", "message": "no metrics returned", "lastTransitionTime": ""},
            {"type": "ScalingLimited", "status": "False", "message": "in range", "lastTransitionTime": ""},
        ],
    }  # fmt: skip
    observed = serving.observed | {"replicas": [pod], "autoscaler": hpa}
    Deployment.objects.filter(pk=serving.pk).update(observed=observed)
    page = said(cluster.browser(cluster.viewer).get(ONE))
    assert "node-7" in page
    assert "2 s to be scheduled, 14 s to start, 31 s to become ready" in page
    assert "The cluster's autoscaler wants 5 replicas (2 to 20 allowed), and has 2 now." in page
    assert "Does not read its signals" in page
    assert "No metrics returned." in page
    assert "in range" not in page
    assert "http://scorer.ml.svc/v2/models/scorer/infer" in page


def test_an_autoscaler_that_has_not_spoken_is_said_to_have_not() -> None:
    assert cluster_words.autoscaler({}) == ""
    document = {"min": 2, "max": 20, "desired": None}
    assert "has not decided yet (2 to 20 allowed)" in cluster_words.autoscaler(document)
