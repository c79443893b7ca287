"""The form of a revision for a cluster: what it fills in, what it refuses beside which field, and that nothing is lost
when a revision is edited by form."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments import preview, services, specs
from deployments.domain import lines, steps
from deployments.domain.cluster import Toleration
from deployments.domain.spec import CanaryStep
from deployments.forms import defaults
from deployments.models import Deployment, Revision
from tests import factories
from tests.deployments import clusters
from tests.deployments.clusters import Cluster

NEW = "/deployments/new/"
CANARY: dict[str, Any] = {
    "strategy": "canary",
    "steps": [{"weight": 5}, {"weight": 40, "pause_s": 300, "min_requests": 2000}],
    "gate": {"p99_ratio": 1.5, "error_points": 2.0, "confidence": 0.99, "max_wait_s": 900},
}
EVERYTHING: dict[str, Any] = {
    "resources": {"cpu": "500m", "memory": "1Gi", "memory_limit": "2Gi", "cpu_limit": "2", "gpus": 1,
                  "gpu_resource": "nvidia.com/mig-1g.10gb"},
    "probes": {"initial_delay_s": 5, "period_s": 3, "startup_s": 120},
    "image": "registry.example.com/ml/server:1.2",
    "image_pull_secret": "pull",
    "priority_class": "serving",
    "node_selector": {"example.com/pool": "gpu", "zone": ""},
    "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}, {"key": "team", "value": "ml"}],
    "volume_claim": "variants",
    "allow_from": ["web", "batch"],
    "route": {"gateway": "front", "namespace": "edge", "hostname": "score.example.com"},
    "autoscaler": "keda",
}  # fmt: skip
WITHOUT_FIELDS: dict[str, Any] = {"environment": {"LOG_LEVEL": "debug"}, "memory_bytes": 2**31}


@pytest.fixture
def cluster(db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with clusters.running(monkeypatch) as one:
        yield one


def body(cluster: Cluster, **changed: Any) -> dict[str, Any]:
    """What a browser sends that changed only these fields."""
    model = cluster.owner.team.models.first() or factories.model(cluster.owner.team, "scorer")
    version = model.versions.first() or factories.version(model)
    return (
        dict(defaults())
        | {"queue_only": ""}
        | {"name": "fresh", "target": "production", "variant": f"scorer/{version.number}/0"}
        | changed
    )


def made(cluster: Cluster, **changed: Any) -> Revision:
    answer = cluster.browser(cluster.owner).post(NEW, body(cluster, **changed))
    assert answer.status_code == 302, answer.context["form"].errors
    return Deployment.objects.get(name="fresh").revisions.get()


def test_a_cluster_gets_the_sizes_of_a_cluster_where_nothing_was_chosen(cluster: Cluster) -> None:
    spec = made(cluster).spec
    assert (spec["autoscaling"]["minReplicas"], spec["autoscaling"]["maxReplicas"]) == (2, 20)
    assert spec["rollout"]["progress_deadline_s"] == 600
    assert spec["cluster"]["resources"] == {
        "cpu": "2", "memory": "4Gi", "memory_limit": "8Gi", "cpu_limit": None, "gpus": 0,
        "gpu_resource": "nvidia.com/gpu",
    }  # fmt: skip
    assert (spec["cluster"]["probes"]["initial_delay_s"], spec["cluster"]["probes"]["period_s"]) == (30, 5)


def test_this_machine_keeps_its_own_sizes(cluster: Cluster) -> None:
    spec = made(cluster, target="this-machine").spec
    assert (spec["autoscaling"]["minReplicas"], spec["autoscaling"]["maxReplicas"]) == (1, 4)
    assert (spec["rollout"]["progress_deadline_s"], spec["cluster"]) == (60, None)


def test_an_engine_asks_for_a_gpu_also_beside_settings_of_one_s_own(cluster: Cluster) -> None:
    sent = body(cluster, stack="triton", memory="6Gi")
    version = cluster.owner.team.models.get().versions.get()
    version.variants.update(format="tensorrt")
    cluster.browser(cluster.owner).post(NEW, sent)
    resources = Deployment.objects.get(name="fresh").revisions.get().spec["cluster"]["resources"]
    assert (resources["gpus"], resources["memory"]) == (1, "6Gi")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("cpu", "two", "Must be a quantity"),
        ("memory", "lots", "Must be a quantity"),
        ("memory_limit", "1Gi", "is below the request"),
        ("cpu_limit", "1", "is below the request"),
        ("gpus", "65", "between 0 and 64"),
        ("gpu_resource", "gpu", "Must be a resource such as nvidia.com/gpu"),
        ("readiness_after_s", "4000", "between 0 and 3,600"),
        ("readiness_every_s", "0", "between 1 and 300"),
        ("startup_s", "1", "between 10 and 7,200"),
        ("image", "Not An Image", "Must be an image"),
        ("image_pull_secret", "No!", "the name of an object"),
        ("priority_class", "No!", "the name of an object"),
        ("node_selector", "pool", "Must have lines such as pool=gpu"),
        ("node_selector", "pool=gpu\npool=cpu", "Has “pool” twice"),
        ("node_selector", "pool=no spaces", "at most 63 letters"),
        ("tolerations", "gpu:Never", "Must be NoSchedule"),
        ("tolerations", ":NoSchedule", "Must have lines such as"),
        ("volume_claim", "No!", "the name of an object"),
        ("allow_from", "web, No!", "the name of a namespace"),
        ("gateway", "No!", "the name of a Gateway"),
        ("gateway_namespace", "edge", "the name of a Gateway"),
        ("hostname", "-", "the name of a Gateway"),
        ("autoscaler", "abacus", "Select a valid choice"),
        ("steps", "5, half", "one is “half”"),
        ("steps", "50, 5", "Must be more than the 50"),
        ("steps", "5, 100", "between 1 and 99"),
        ("p99_ratio", "1", "between 1.05 and 10"),
        ("error_points", "0", "between 0.1 and 100"),
        ("confidence", "0.5", "between 0.8 and 0.999"),
        ("max_wait_s", "5", "between 60 and"),
        ("hold_s", "-1", "between 0 and"),
    ],
)
def test_what_a_cluster_would_refuse_is_refused_beside_its_field(
    cluster: Cluster, field: str, value: str, words: str
) -> None:
    beside = {"gateway_namespace": "gateway", "hostname": "gateway"}.get(field, field)
    answer = cluster.browser(cluster.owner).post(NEW, body(cluster, **{field: value}))
    assert answer.status_code in {400, 422}
    form = answer.context["form"]
    assert words in " ".join(form.errors[beside]), form.errors
    assert list(form.errors) == [beside]
    assert not Deployment.objects.filter(name="fresh").exists()


def test_a_machine_refuses_what_only_a_cluster_has_where_it_was_changed(cluster: Cluster) -> None:
    answer = cluster.browser(cluster.owner).post(
        NEW, body(cluster, target="this-machine", node_selector="pool=gpu", memory="1Gi")
    )
    said = "Only for clusters, and “this-machine” is none."
    assert answer.context["form"].errors == {"memory": [said], "node_selector": [said]}
    assert '<details class="disclosure" id="on-a-cluster" open' in answer.content.decode()


def test_queue_depth_can_be_kept_alone_and_the_page_says_what_that_costs(cluster: Cluster) -> None:
    body(cluster)
    page = cluster.browser(cluster.owner).get(NEW).content.decode()
    assert "Not advised: the queue is empty whenever capacity suffices" in page
    metrics = made(cluster, queue_only="on").spec["autoscaling"]["metrics"]
    assert [one["external"]["metric"]["name"] for one in metrics] == ["inference_queue_depth"]
    form = cluster.browser(cluster.owner).get("/deployments/fresh/settings/").context["form"]
    assert form.initial["queue_only"] is True


@pytest.mark.parametrize(
    "rollout", [CANARY, {"strategy": "blue_green", "hold_s": 42}, {"strategy": "recreate"}]
)
def test_editing_by_form_changes_nothing_that_was_not_touched(
    cluster: Cluster, rollout: dict[str, Any]
) -> None:
    row = cluster.deployment()
    variant = factories.version(factories.model(cluster.owner.team, "scorer")).variants.get(number=0)
    spec = specs.read_spec({"rollout": rollout, "cluster": EVERYTHING} | WITHOUT_FIELDS, cluster.row)
    spec.autoscaling["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 900}}
    services.add_revision(cluster.owner, row, variant=variant, spec=spec)
    client = cluster.browser(cluster.owner)
    form = client.get("/deployments/scorer/settings/").context["form"]
    sent = {name: "" if value is False else value for name, value in form.initial.items()}
    answer = client.post("/deployments/scorer/settings/", sent)
    assert answer.status_code == 302, answer.context["form"].errors
    before, after = row.revisions.order_by("number")
    assert preview.compare(before, after) == ()
    assert before.spec == after.spec


def test_settings_of_this_machine_have_no_fields_of_a_cluster(cluster: Cluster) -> None:
    made(cluster, target="this-machine")
    page = cluster.browser(cluster.owner).get("/deployments/fresh/settings/").content.decode()
    assert "Strategy" in page
    assert "Node selector" not in page


def test_the_api_fills_in_the_same_sizes(cluster: Cluster) -> None:
    sent = body(cluster)
    cluster.deployment()
    document = {"model": "scorer", "version": int(sent["variant"].split("/")[1]), "variant": 0, "spec": {}}
    answer = cluster.browser(cluster.owner).post(
        "/api/v1/deployments/scorer/revisions/", document, content_type="application/json"
    )
    assert answer.status_code == 201, answer.content
    spec = answer.json()["spec"]
    assert (spec["autoscaling"]["minReplicas"], spec["rollout"]["progress_deadline_s"]) == (2, 600)


@given(
    st.lists(
        st.builds(
            CanaryStep,
            weight=st.integers(1, 99),
            min_requests=st.integers(0, 10_000_000),
            pause_s=st.integers(0, 86_400),
        )
    )
)
def test_steps_are_read_as_they_are_written(written: list[CanaryStep]) -> None:
    assert [CanaryStep(**one) for one in steps.read(steps.write(written))] == written


_KEYS = st.from_regex(r"[a-z][a-z0-9./_-]{0,20}", fullmatch=True)
_VALUES = st.from_regex(r"[A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(st.dictionaries(_KEYS, _VALUES))
def test_labels_are_read_as_they_are_written(labels: dict[str, str]) -> None:
    assert lines.read_labels("labels", lines.write_labels(labels)) == labels


@given(
    st.lists(
        st.builds(
            Toleration,
            key=st.sampled_from(["team", "nvidia.com/gpu"]),
            value=st.sampled_from(["", "present", "a.b"]),
            effect=st.sampled_from(["", "NoSchedule", "NoExecute"]),
        )
    )
)
def test_tolerations_are_read_as_they_are_written(written: list[Toleration]) -> None:
    found = lines.read_tolerations("tolerations", lines.write_tolerations(written))
    assert [Toleration(**one) for one in found] == written
