"""What the Helm chart renders to is what a cluster takes: valid, restricted, and with no more access than it needs.

It is rendered by the real helm, where there is one (`install/helm.py` gets it). No cluster runs here: nothing of this
was installed.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from controlplane.embedded import chart
from controlplane.embedded.processes import Container, Process, Tier, table
from tests.install.test_chart import CHART, EXAMPLES, ROOT, SECRETS_EXIST, data, default_values, laid_over

EVERYTHING = CHART / "ci" / "everything-values.yaml"
KUBERNETES = "1.37"
NO_SCHEMA = {"HTTPRoute"}
"""A custom resource: its schema is the Gateway API's, which is in no package."""

Manifests = list[dict[str, Any]]


@pytest.fixture(scope="session")
def helm() -> str:
    asked = [os.environ.get("SLIPWAY_HELM"), str(ROOT / ".slipway" / "tools" / "helm" / "helm"), "helm"]
    for candidate in filter(None, asked):
        if found := shutil.which(candidate):
            return found
    pytest.skip("not run: there is no helm (python install/helm.py, or SLIPWAY_HELM)")


@pytest.fixture
def render(helm: str) -> Callable[..., Manifests]:
    def rendered(*options: str, values: Path = SECRETS_EXIST, folder: Path = CHART) -> Manifests:
        answer = subprocess.run(
            [helm, "template", "slipway", str(folder), "-n", "mlops", "-f", str(values), *options],
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            raise ValueError(answer.stderr)
        return [document for document in yaml.safe_load_all(answer.stdout) if document]

    return rendered


def of_kind(manifests: Manifests, kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in manifests if one["kind"] == kind}


def pods(manifests: Manifests) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in manifests:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] in {"Deployment", "Job"}:
            yield name, one["spec"]["template"]["spec"]
        elif one["kind"] == "Pod":
            yield name, one["spec"]


@pytest.mark.parametrize("values", EXAMPLES, ids=lambda path: path.name)
def test_helm_finds_nothing_to_object_to(helm: str, values: Path) -> None:
    answer = subprocess.run(
        [helm, "lint", "--strict", str(CHART), "-f", str(values)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("values", EXAMPLES, ids=lambda path: path.name)
def test_every_manifest_fits_the_schema_of_kubernetes(render: Callable[..., Manifests], values: Path) -> None:
    manifests = render(values=values)
    for one in manifests:
        if one["kind"] not in NO_SCHEMA:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)
    named = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in manifests]
    assert len(named) == len(set(named))


@pytest.mark.parametrize("values", EXAMPLES, ids=lambda path: path.name)
def test_every_pod_fits_the_level_restricted_and_has_a_root_that_it_cannot_write(
    render: Callable[..., Manifests], values: Path
) -> None:
    for name, pod in pods(render(values=values)):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["limits"]["memory"], name
        kinds = {kind for volume in pod.get("volumes", []) for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "persistentVolumeClaim", "projected", "configMap", "secret"}, name


@pytest.mark.parametrize("values", EXAMPLES, ids=lambda path: path.name)
def test_every_process_is_a_deployment_with_its_command_and_the_time_it_needs_to_stop(
    render: Callable[..., Manifests], values: Path
) -> None:
    deployments = of_kind(render(values=values), "Deployment")
    given = laid_over(default_values(), yaml.safe_load(values.read_text()))
    rows = {name: row for name, row in data()["processes"].items() if not row.get("switch")}
    pools = {f"worker-gpu-{pool['name']}": rows["worker-gpu"] for pool in given["gpuPools"]}
    expected = {name: row for name, row in rows.items() if name != "worker-gpu"} | pools
    assert set(deployments) == {f"slipway-{name}" for name in expected}
    for name, row in expected.items():
        pod = deployments[f"slipway-{name}"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["command"] == row["command"]
        more = given["workerFinishSeconds"] if row["image"] == "worker" else 0
        assert pod["terminationGracePeriodSeconds"] >= row["stopSeconds"] + more
        asked = {variable["name"]: variable for variable in container["env"]}
        assert len(asked) == len(container["env"])
        secret = {name for name, variable in asked.items() if "secretKeyRef" in variable.get("valueFrom", {})}
        assert secret <= set(row["secrets"])
        assert {"SLIPWAY_SECRET_KEY", "DATABASE_URL", "REDIS_URL"} <= secret


def test_only_the_importer_is_given_the_tokens_of_registries_and_only_the_migration_the_password(
    render: Callable[..., Manifests],
) -> None:
    holders: dict[str, set[str]] = {}
    for name, pod in pods(render()):
        for variable in pod["containers"][0].get("env", []):
            if "valueFrom" in variable:
                holders.setdefault(variable["name"], set()).add(name)
    assert holders["SLIPWAY_HF_TOKEN"] == {"Deployment/slipway-importer"}
    assert holders["SLIPWAY_ADMIN_PASSWORD"] == {"Job/slipway-migration"}


def test_the_migration_runs_before_a_version_and_needs_nothing_that_the_chart_makes_later(
    render: Callable[..., Manifests],
) -> None:
    manifests = render(values=EVERYTHING)
    job = of_kind(manifests, "Job")["slipway-migration"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    pod = job["spec"]["template"]["spec"]
    assert "serviceAccountName" not in pod
    assert {kind for volume in pod["volumes"] for kind in volume} == {"name", "emptyDir"}
    wanted = {
        variable["valueFrom"]["secretKeyRef"]["name"]
        for variable in pod["containers"][0]["env"]
        if "valueFrom" in variable
    }
    (secret,) = (of_kind(manifests, "Secret")[name] for name in wanted)
    assert secret["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    before = int(secret["metadata"]["annotations"]["helm.sh/hook-weight"])
    assert before < int(job["metadata"]["annotations"]["helm.sh/hook-weight"])


def test_the_chart_s_own_secret_has_what_the_processes_ask_of_it_and_not_the_first_password(
    render: Callable[..., Manifests],
) -> None:
    manifests = render(values=EVERYTHING)
    secrets = of_kind(manifests, "Secret")
    for name, pod in pods(manifests):
        for variable in pod["containers"][0].get("env", []):
            asked = variable.get("valueFrom", {}).get("secretKeyRef")
            if asked:
                assert asked["key"] in secrets[asked["name"]]["stringData"], name
    assert "SLIPWAY_ADMIN_PASSWORD" not in secrets["slipway"]["stringData"]
    assert not of_kind(render(), "Secret")


def test_a_pool_s_replica_has_one_gpu_or_mig_instance_to_itself(render: Callable[..., Manifests]) -> None:
    deployments = of_kind(render(values=EVERYTHING), "Deployment")
    for pool, resource in (("l4", "nvidia.com/gpu"), ("a100-slice", "nvidia.com/mig-1g.10gb")):
        pod = deployments[f"slipway-worker-gpu-{pool}"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["limits"][resource] == 1
        assert {"name": "CUDA_VISIBLE_DEVICES", "value": "0"} in container["env"]
    l4 = deployments["slipway-worker-gpu-l4"]["spec"]["template"]["spec"]
    assert l4["runtimeClassName"] == "nvidia"
    assert l4["containers"][0]["image"] == "registry.example.com/ml/slipway-worker-gpu:0.1.0-cuda"
    assert l4["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    for name, deployment in deployments.items():
        if not name.startswith("slipway-worker-gpu-"):
            assert "nvidia.com" not in json.dumps(deployment["spec"]["template"]["spec"]), name


def test_a_token_of_the_cluster_is_given_only_to_what_talks_to_it_and_only_where_asked(
    render: Callable[..., Manifests],
) -> None:
    def holders(manifests: Manifests) -> set[str]:
        return {name for name, pod in pods(manifests) if pod["automountServiceAccountToken"]}

    assert holders(render()) == set()
    manifests = render(values=EVERYTHING)
    talkers = {name for name, row in data()["processes"].items() if "access" in row}
    assert holders(manifests) == {f"Deployment/slipway-{name}" for name in talkers}
    roles = [one for one in manifests if one["kind"] == "Role"]
    assert {role["metadata"]["namespace"] for role in roles} == {"models", "models-staging"}
    asked = {name for role in roles for rule in role["rules"] for name in rule["resources"]}
    assert not asked & {"secrets", "pods/exec", "*"}
    for role in roles:
        verbs = {verb for rule in role["rules"] for verb in rule["verbs"]}
        assert verbs == {"get", "list", "watch"} | (
            {"create", "patch", "delete"} if role["metadata"]["name"].endswith("-writes") else set()
        )
    assert not [one for one in manifests if one["kind"].startswith("ClusterRole")]
    writers = {
        subject["name"]
        for one in manifests
        if one["kind"] == "RoleBinding" and one["roleRef"]["name"].endswith("-writes")
        for subject in one["subjects"]
    }
    assert writers == {"slipway-worker-rollouts"}


def test_probes_ask_what_answers_without_a_login_under_a_name_that_is_allowed(
    render: Callable[..., Manifests],
) -> None:
    deployments = of_kind(render(), "Deployment")
    for process, alive, ready in (
        ("web", "/healthz", "/readyz"),
        ("live", "/live/health", "/live/health"),
    ):
        (container,) = deployments[f"slipway-{process}"]["spec"]["template"]["spec"]["containers"]
        for probe, path in (("livenessProbe", alive), ("readinessProbe", ready)):
            assert container[probe]["httpGet"]["path"] == path
            assert container[probe]["httpGet"]["httpHeaders"] == [{"name": "Host", "value": "localhost"}]
        assert container["ports"][0]["name"] == container["readinessProbe"]["httpGet"]["port"]


def test_the_ingress_and_the_gateway_route_as_the_edge_does(render: Callable[..., Manifests]) -> None:
    manifests = render(values=EVERYTHING)
    services = of_kind(manifests, "Service")
    ingress = of_kind(manifests, "Ingress")["slipway"]["spec"]
    route = of_kind(manifests, "HTTPRoute")["slipway"]["spec"]
    paths = {
        path["path"]: path["backend"]["service"]["name"] for path in ingress["rules"][0]["http"]["paths"]
    }
    matched = {rule["matches"][0]["path"]["value"]: rule["backendRefs"][0]["name"] for rule in route["rules"]}
    assert paths == matched == {"/live/": "slipway-live", "/": "slipway-web"}
    assert set(paths.values()) <= set(services)
    assert ingress["tls"] == [{"hosts": ["slipway.example.com"]}]
    deployments = of_kind(manifests, "Deployment")
    for name in paths.values():
        labels = deployments[name]["spec"]["template"]["metadata"]["labels"]
        assert services[name]["spec"]["selector"].items() <= labels.items()


def test_what_has_no_business_outside_reaches_the_servers_alone(render: Callable[..., Manifests]) -> None:
    manifests = render(values=EVERYTHING)
    policies = of_kind(manifests, "NetworkPolicy")
    assert set(policies) == set(of_kind(manifests, "Deployment"))
    for name in ("slipway-worker-optimize", "slipway-worker-gpu-l4", "slipway-dispatcher"):
        assert policies[name]["spec"]["ingress"] == []
        ports = {port["port"] for rule in policies[name]["spec"]["egress"] for port in rule["ports"]}
        assert ports == {53, 5432, 6380}
    (importer,) = (rule["to"] for rule in policies["slipway-importer"]["spec"]["egress"] if "to" in rule)
    assert {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]} in [
        peer.get("ipBlock") for peer in importer
    ]
    (web,) = policies["slipway-web"]["spec"]["ingress"]
    assert len(web["from"]) == 2  # the proxy's namespace, and `helm test`


def test_copies_are_disrupted_one_at_a_time_and_the_one_collector_is_stopped_before_the_next(
    render: Callable[..., Manifests],
) -> None:
    manifests = render(values=EVERYTHING)
    budgets = of_kind(manifests, "PodDisruptionBudget")
    assert set(budgets) == {"slipway-web", "slipway-live", "slipway-dispatcher"}
    deployments = of_kind(manifests, "Deployment")
    assert deployments["slipway-collector"]["spec"]["replicas"] == 1
    assert deployments["slipway-collector"]["spec"]["strategy"] == {"type": "Recreate"}
    assert deployments["slipway-load"]["spec"]["replicas"] == 0
    assert deployments["slipway-web"]["spec"]["replicas"] == 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--set", "processes.wbe.replicas=2"], "processes.wbe is no process: there are collector, "),
        (["--set", "processes.worker-gpu.replicas=2"], "GPU workers are in gpuPools"),
        (["--set", "processes.collector.replicas=2"], "processes.collector.replicas is 2: at most one"),
        (["--set", "postgres.existingSecret="], "Neither postgres.url nor postgres.existingSecret is set"),
        (["--set", "redis.url=redis://redis/0"], "redis.url and redis.existingSecret are both set"),
        (["--set", "storage.accessMode=Sometimes"], r"storage[./]accessMode"),
    ],
)
def test_helm_refuses_with_the_field(
    render: Callable[..., Manifests], options: list[str], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        render(*options)


def test_metrics_api_answers_the_cluster_over_tls_in_two_copies_and_only_where_asked(
    render: Callable[..., Manifests], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Process(
        name="metrics-api",
        argv=("python", "manage.py", "metrics_api"),
        tier=Tier.WEB,
        reads=("SLIPWAY_HOME", "REDIS_URL", "SLIPWAY_METRICS_CERT", "SLIPWAY_KEDA_TOKEN"),
        container=Container(image="web", port=8443),
    )
    monkeypatch.setattr(
        chart, "table", lambda site: (*(one for one in table(site) if one.name != row.name), row)
    )
    folder = tmp_path / "slipway"
    shutil.copytree(CHART, folder)
    (folder / "processes.yaml").write_text(chart.text())
    assert "slipway-metrics-api" not in of_kind(render(folder=folder), "Deployment")
    values = tmp_path / "values.yaml"
    values.write_text(
        SECRETS_EXIST.read_text() + "metricsApi:\n"
        "  enabled: true\n"
        "  apiService: true\n"
        "  tlsSecret: metrics-tls\n"
        '  clientCa: "-----BEGIN CERTIFICATE-----\\n"\n'
        "  kedaToken: {existingSecret: keda}\n"
    )
    manifests = render(values=values, folder=folder)
    for one in manifests:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    deployment = of_kind(manifests, "Deployment")["slipway-metrics-api"]
    assert deployment["spec"]["replicas"] == 2
    pod = deployment["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    environment = {one["name"]: one for one in pod["containers"][0]["env"]}
    assert environment["SLIPWAY_METRICS_ADDRESS"]["value"] == "0.0.0.0:8443"
    assert environment["SLIPWAY_KEDA_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "keda"
    assert not {"DATABASE_URL", "SLIPWAY_SECRET_KEY"} & set(environment)
    registered = of_kind(manifests, "APIService")["v1beta1.external.metrics.k8s.io"]["spec"]["service"]
    assert registered == {"name": "slipway-metrics-api", "namespace": "mlops", "port": 443}
    service = of_kind(manifests, "Service")["slipway-metrics-api"]["spec"]
    assert service["ports"] == [{"name": "https", "port": 443, "targetPort": "main"}]
    assert "slipway-metrics-api" in of_kind(manifests, "PodDisruptionBudget")
    with pytest.raises(ValueError, match="metricsApi\\.tlsSecret is empty"):
        render("--set", "metricsApi.tlsSecret=", values=values, folder=folder)
