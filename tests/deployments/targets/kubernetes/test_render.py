"""What is rendered is valid, plain, the same each time, and cannot be talked into anything by a name."""

import json
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.errors import InvalidInput, Unprocessable
from deployments.domain.cluster import (
    ClusterSettings,
    ClusterWorkload,
    Probes,
    Resources,
    Route,
    Toleration,
)
from deployments.domain.workload import DesiredDeployment, Workload
from deployments.targets.kubernetes import names
from deployments.targets.kubernetes.render import Manifest, render
from deployments.targets.kubernetes.render.place import Place
from tests.deployments.targets.kubernetes.room import cluster_workload, scaled

PLACE = Place(namespace="ml", fetch_url="https://slipway.example.com")
SCHEMAS = "1.36"
WITHOUT_SCHEMA = {"HTTPRoute", "ScaledObject", "TriggerAuthentication"}


def wish(*workloads: Workload, path: str = "/risk/fraud-scorer") -> DesiredDeployment:
    return DesiredDeployment(key="d7", path=path, generation=3, workloads=workloads)


def told(workload: Workload, **settings: Any) -> Workload:
    assert workload.cluster is not None
    return replace(
        workload, cluster=replace(workload.cluster, settings=replace(workload.cluster.settings, **settings))
    )


def of_kind(manifests: tuple[Manifest, ...], kind: str) -> list[Manifest]:
    return [one for one in manifests if one["kind"] == kind]


def pod_of(manifest: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def validate(manifests: tuple[Manifest, ...]) -> None:
    for one in manifests:
        if one["kind"] not in WITHOUT_SCHEMA:
            kubernetes_validate.validate(one, SCHEMAS, strict=True)


EVERYTHING = ClusterSettings(
    resources=Resources(cpu="500m", memory="1Gi", memory_limit="2Gi", cpu_limit="2", gpus=1),
    probes=Probes(initial_delay_s=0, period_s=2, startup_s=60),
    image="registry.example.com:5000/team/model:1.2@sha256:" + "a" * 64,
    image_pull_secret="pull",
    priority_class="urgent",
    node_selector={"pool": "gpu"},
    tolerations=(Toleration(key="dedicated", value="ml", effect="NoSchedule"),),
    volume_claim="models",
    allow_from=("shop",),
    route=Route(gateway="public", namespace="infra", hostname="models.example.com"),
)


@pytest.mark.parametrize("autoscaler", ["hpa", "keda", "slipway", "none"])
def test_every_object_is_valid_by_the_official_schemas(autoscaler):
    main = told(cluster_workload(1, 3, settings=EVERYTHING), autoscaler=autoscaler)
    canary = replace(told(cluster_workload(2, 1, settings=EVERYTHING)), candidate=True, weight=10)
    validate(render(wish(main), PLACE, pull_token="t"))
    validate(render(wish(main, canary), PLACE, pull_token="t"))


def test_the_guides_values_are_the_defaults():
    manifests = render(wish(scaled(cluster_workload(1, 2))), PLACE)
    pod = pod_of(of_kind(manifests, "Deployment")[0])
    (server,) = pod["containers"]
    assert server["resources"] == {
        "requests": {"cpu": "2", "memory": "4Gi"},
        "limits": {"memory": "8Gi"},
    }
    assert server["readinessProbe"] == {
        "httpGet": {"path": "/v2/health/ready", "port": "http"},
        "initialDelaySeconds": 30,
        "periodSeconds": 5,
    }
    (hpa,) = of_kind(manifests, "HorizontalPodAutoscaler")
    assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (2, 20)
    external = {one["external"]["metric"]["name"]: one["external"] for one in hpa["spec"]["metrics"]}
    assert external["inference_queue_depth"]["target"] == {"type": "AverageValue", "averageValue": "10"}
    assert set(external) == {"inference_queue_depth", "inference_in_flight"}
    for one in external.values():
        assert one["metric"]["selector"] == {"matchLabels": {"deployment": "fraud-scorer"}}


def test_pods_meet_the_restricted_pod_security_profile():
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    pod = pod_of(of_kind(render(wish(cluster_workload(1, 2, settings=EVERYTHING)), PLACE), "Deployment")[0])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in [*pod["initContainers"], *pod["containers"]]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
    allowed = {"configMap", "emptyDir", "secret", "persistentVolumeClaim"}
    assert all((set(volume) - {"name"}) <= allowed for volume in pod["volumes"])
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


def test_an_engine_goes_only_where_its_compute_capability_is():
    workload = cluster_workload(1, 1, settings=ClusterSettings(resources=Resources(gpus=1)))
    assert workload.cluster is not None
    workload = replace(workload, cluster=replace(workload.cluster, capabilities=("8.6", "8.9")))
    pod = pod_of(of_kind(render(wish(workload), PLACE), "Deployment")[0])
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    asked = [{one["key"]: one["values"] for one in term["matchExpressions"]} for term in terms]
    assert asked == [
        {"nvidia.com/gpu.compute.major": ["8"], "nvidia.com/gpu.compute.minor": ["6"]},
        {"nvidia.com/gpu.compute.major": ["8"], "nvidia.com/gpu.compute.minor": ["9"]},
    ]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    resources = pod["containers"][0]["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "1"


def test_a_mig_slice_is_asked_for_by_its_own_name():
    wanted = Resources(gpus=2, gpu_resource="nvidia.com/mig-1g.10gb")
    pod = pod_of(
        of_kind(
            render(wish(cluster_workload(settings=ClusterSettings(resources=wanted))), PLACE), "Deployment"
        )[0]
    )
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == "2"


def test_triton_gets_its_model_repository():
    workload = cluster_workload(1, 1, stack="triton", model_name="fraud", model_version="4")
    manifests = render(wish(workload), PLACE)
    validate(manifests)
    (config,) = [
        one for one in of_kind(manifests, "ConfigMap") if names.RECORD not in one["metadata"]["labels"]
    ]
    ((key, text),) = config["data"].items()
    assert "dynamic_batching" in text
    (server,) = pod_of(of_kind(manifests, "Deployment")[0])["containers"]
    mounts = {one["mountPath"]: one.get("subPath") for one in server["volumeMounts"]}
    assert mounts["/models/fraud/config.pbtxt"] == key
    assert "/models/fraud/4" in mounts
    (fetch,) = pod_of(of_kind(manifests, "Deployment")[0])["initContainers"]
    assert fetch["args"][1] == "/models/fraud/4/model.onnx"


def test_a_candidate_without_a_route_shares_by_its_replicas():
    pair = (cluster_workload(1, 3), replace(cluster_workload(2, 1), candidate=True))
    (service,) = of_kind(render(wish(*pair), PLACE), "Service")
    assert service["spec"]["selector"] == {names.KEY: "d7"}
    assert {one["metadata"]["name"] for one in of_kind(render(wish(*pair), PLACE), "Deployment")} == {
        "fraud-scorer",
        "fraud-scorer-candidate",
    }


@pytest.mark.parametrize(("weight", "slot"), [(0, "main"), (100, "candidate")])
def test_a_candidate_has_none_of_the_traffic_or_all_of_it(weight, slot):
    pair = (cluster_workload(1, 3), replace(cluster_workload(2, 3), candidate=True, weight=weight))
    (service,) = of_kind(render(wish(*pair), PLACE), "Service")
    assert service["spec"]["selector"] == {names.KEY: "d7", names.SLOT: slot}


def test_a_route_splits_by_weight():
    settings = ClusterSettings(route=Route(gateway="public"))
    pair = (
        cluster_workload(1, 3, settings=settings),
        replace(cluster_workload(2, 1, settings=settings), candidate=True, weight=5),
    )
    (route,) = of_kind(render(wish(*pair), PLACE), "HTTPRoute")
    weights = {one["name"]: one["weight"] for one in route["spec"]["rules"][0]["backendRefs"]}
    assert weights == {"fraud-scorer-main": 95, "fraud-scorer-candidate": 5}


def test_three_revisions_side_by_side_are_refused():
    with pytest.raises(Unprocessable, match="More than two revisions"):
        render(wish(cluster_workload(1), cluster_workload(2), cluster_workload(3)), PLACE)


def test_the_address_stays_where_nothing_runs():
    manifests = render(wish(), PLACE)
    validate(manifests)
    assert of_kind(manifests, "Service")
    assert not of_kind(manifests, "Deployment")


def test_an_authority_of_its_own_is_trusted_by_what_fetches_and_by_nothing_else():
    manifests = render(wish(cluster_workload(1, 2)), replace(PLACE, fetch_ca="-----BEGIN CERTIFICATE-----"))
    validate(manifests)
    pod = of_kind(manifests, "Deployment")[0]["spec"]["template"]["spec"]
    fetch, server = pod["initContainers"][0], pod["containers"][0]
    trusted = {one["name"]: one["value"] for one in fetch["env"]}["SLIPWAY_PULL_CA"]
    (mount,) = (one for one in fetch["volumeMounts"] if one["mountPath"] == trusted.rpartition("/")[0])
    (volume,) = (one for one in pod["volumes"] if one["name"] == mount["name"])
    named = {one["metadata"]["name"]: one for one in of_kind(manifests, "ConfigMap")}
    assert named[volume["configMap"]["name"]]["data"] == {"ca.crt": "-----BEGIN CERTIFICATE-----"}
    assert mount["name"] not in {one["name"] for one in server["volumeMounts"]}


@settings(max_examples=40)
@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", fullmatch=True),
    model=st.text(min_size=1, max_size=300),
)
def test_every_name_of_a_deployment_and_a_model_gives_valid_objects(name, model):
    workload = cluster_workload(1, 2, model_name=model)
    manifests = render(wish(scaled(workload), path=f"/team/{name}"), PLACE, pull_token="t")
    validate(manifests)
    for one in manifests:
        assert len(one["metadata"]["name"]) <= 63
        for value in one["metadata"]["labels"].values():
            assert len(value) <= 63
    text = yaml.safe_dump_all(manifests)
    assert list(yaml.safe_load_all(text)) == json.loads(json.dumps(manifests))


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_two_names_never_become_one(first, second):
    a, b = names.object_name(first), names.object_name(second)
    assert (a == b) == (first == second)
    assert len(a) <= names.LONGEST
    assert a[0].isalpha()


def test_the_same_wish_gives_the_same_bytes():
    one = wish(scaled(cluster_workload(1, 2, settings=EVERYTHING)))
    assert json.dumps(render(one, PLACE)) == json.dumps(
        render(DesiredDeployment.from_json(one.to_json()), PLACE)
    )


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("cluster.resources.cpu", lambda: Resources(cpu="-1")),
        ("cluster.resources.memory", lambda: Resources(memory="1e999")),
        ("cluster.resources.memory", lambda: Resources(memory="4 GB")),
        ("cluster.resources.memory", lambda: Resources(memory="")),
        ("cluster.resources.memory", lambda: Resources(memory="0")),
        ("cluster.resources.memory_limit", lambda: Resources(memory="8Gi", memory_limit="4Gi")),
        ("cluster.resources.cpu_limit", lambda: Resources(cpu="2", cpu_limit="1")),
        ("cluster.resources.gpus", lambda: Resources(gpus=-1)),
        ("cluster.resources.gpu_resource", lambda: Resources(gpu_resource="gpu")),
        ("cluster.probes.period_s", lambda: Probes(period_s=0)),
        ("cluster.probes.startup_s", lambda: Probes(startup_s=0)),
        ("cluster.image", lambda: ClusterSettings(image="model:1 --privileged")),
        ("cluster.image", lambda: ClusterSettings(image="Model\nkind: Pod")),
        ("cluster.image_pull_secret", lambda: ClusterSettings(image_pull_secret="a/b")),
        ("cluster.node_selector.pool", lambda: ClusterSettings(node_selector={"pool": "a b"})),
        ("cluster.node_selector.x: y", lambda: ClusterSettings(node_selector={"x: y": "1"})),
        ("cluster.tolerations.effect", lambda: Toleration(key="a", effect="Never")),
        ("cluster.allow_from", lambda: ClusterSettings(allow_from=("Shop",))),
        ("cluster.route.hostname", lambda: Route(gateway="g", hostname="*.example.com/x")),
        ("cluster.autoscaler", lambda: ClusterSettings(autoscaler="cron")),
    ],
)
def test_what_a_cluster_would_refuse_is_refused_with_the_field_named(field, make):
    with pytest.raises(InvalidInput) as caught:
        make()
    assert list(caught.value.fields) == [field]


def test_settings_survive_their_own_json():
    workload = ClusterWorkload(settings=EVERYTHING, autoscaling={"maxReplicas": 2}, capabilities=("8.6",))
    assert ClusterWorkload.from_json(json.loads(json.dumps(workload.to_json()))) == workload
