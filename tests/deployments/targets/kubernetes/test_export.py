"""Exports say the same in three forms, stand alone, and cannot be talked into anything by a name. Read by the real
tools where they are."""

import io
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from hypothesis import example, given
from hypothesis import settings as thoroughness
from hypothesis import strategies as st

from deployments.domain.workload import DesiredDeployment, Workload
from deployments.targets.kubernetes import live, names, written
from deployments.targets.kubernetes.export import Form, export, objects
from deployments.targets.kubernetes.render import Manifest
from deployments.targets.kubernetes.render.place import Place
from tests.deployments.targets.kubernetes.room import cluster_workload, scaled
from tests.deployments.targets.kubernetes.test_render import EVERYTHING, told, validate

PLACE = Place(
    namespace="ml",
    fetch_url="https://slipway.example.com/",
    metrics_url="https://metrics",
    keda_secret="keda",
)
type Objects = dict[live.Ref, Manifest]
NASTY = [
    '{{ .Values.image }}"}}', "a: b # c", "1e3", "0o7", "1_000", "on", "y", "~", "- x",
    "\x7f", "\x9f\ufeff\uffff", "a\x85b\nc", "a\r\nb", "a \nb", "\x01", "x: |\n  y\n", " \n\n", "\u2028x\x85",
    "'\"\\", "%YAML 1.2\n---\n", "${HOME}", "\ttab", "é\U0001f600", "12:30:45", "0x1F", ".inf", "*a &b !c",
]  # fmt: skip
PRINTABLE = [text for text in NASTY if not re.search("[\x01\x7f-\x9f\ufeff\uffff]", text)]
"""Kustomize writes nothing else."""


def wish(workload: Workload, path: str = "/risk/fraud-scorer") -> DesiredDeployment:
    return DesiredDeployment(key="d7", path=path, generation=3, workloads=(workload,))


def everything(autoscaler: str = "hpa") -> Workload:
    return told(cluster_workload(4, 3, settings=EVERYTHING), autoscaler=autoscaler)


def by_ref(text: str) -> Objects:
    found = [one for one in yaml.safe_load_all(text) if one]
    keyed = {live.ref(one): one for one in found}
    assert len(keyed) == len(found)
    return keyed


def plain(workload: Workload) -> Objects:
    return by_ref(export(wish(workload), PLACE, Form.YAML).content.decode())


def unpack(workload: Workload, form: Form, to: Path) -> Path:
    """The folder inside."""
    content = io.BytesIO(export(wish(workload), PLACE, form).content)
    if form is Form.HELM:
        with tarfile.open(fileobj=content) as archive:
            archive.extractall(to, filter="data")
    else:
        with zipfile.ZipFile(content) as files:
            files.extractall(to)
    return to / "fraud-scorer"


def tool(name: str, *candidates: str) -> str:
    for candidate in filter(None, candidates):
        if found := shutil.which(candidate):
            return found
    pytest.skip(f"not run: there is no {name}")


@pytest.fixture(scope="session")
def helm() -> str:
    own = settings.BASE_DIR / ".slipway" / "tools" / "helm" / "helm"
    return tool(
        "helm (python install/helm.py, or SLIPWAY_HELM)", os.environ.get("SLIPWAY_HELM", ""), str(own), "helm"
    )


@pytest.fixture(scope="session")
def kubectl() -> str:
    return tool("kubectl", "kubectl")


def said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def templated(helm: str, chart: Path, *options: str, namespace: str = "ml") -> Objects:
    return by_ref(said(helm, "template", "some-release", str(chart), "-n", namespace, *options))


@pytest.mark.parametrize("autoscaler", ["hpa", "keda", "slipway", "none"])
def test_what_is_exported_is_valid_and_carries_nothing_of_slipway_s_own(autoscaler: str) -> None:
    found = objects(wish(everything(autoscaler)), PLACE)
    validate(found)
    text = export(wish(everything(autoscaler)), PLACE, Form.YAML).content.decode()
    assert by_ref(text) == {live.ref(one): one for one in found}
    for own in (names.MANAGED_BY, names.GENERATION, names.RECORD, "wish.json"):
        assert own not in text
    assert not re.search(r"\bd7\b", text), "the key, by which Services would take another deployment's pods"
    (secret,) = (one for one in found if one["kind"] == "Secret")
    assert (secret["stringData"], "data" in secret) == ({"token": ""}, False)


def test_services_and_budgets_still_find_their_pods() -> None:
    found = plain(everything())
    labels = found["Deployment", "fraud-scorer"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        found["Service", "fraud-scorer"]["spec"]["selector"],
        *(
            found[kind, "fraud-scorer"]["spec"][field]["matchLabels"]
            for kind, field in (
                ("Deployment", "selector"), ("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector"),
            )
        ),
    ]  # fmt: skip
    for selector in selectors:
        assert selector.items() <= labels.items()


def test_a_size_that_only_slipway_moves_is_written_down() -> None:
    assert plain(everything("slipway"))["Deployment", "fraud-scorer"]["spec"]["replicas"] == 3
    assert "replicas" not in plain(everything("hpa"))["Deployment", "fraud-scorer"]["spec"]


@pytest.mark.parametrize("form", list(Form))
def test_the_same_wish_is_the_same_bytes(form: Form) -> None:
    first, again = (export(wish(everything()), PLACE, form) for _ in range(2))
    assert first == again


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8")), st.one_of(st.text(), st.integers(), st.booleans()))
)
@example(dict.fromkeys(NASTY, "x") | {f"{place}.": text for place, text in enumerate(NASTY)})
def test_written_yaml_is_read_as_it_was_meant(one: dict[str, Any]) -> None:
    assert yaml.safe_load(written.document(one)) == one


def test_helm_says_the_same_as_the_plain_yaml(helm: str, tmp_path: Path) -> None:
    for autoscaler in ("hpa", "keda", "slipway", "none"):
        folder = tmp_path / autoscaler
        chart = unpack(everything(autoscaler), Form.HELM, folder)
        assert templated(helm, chart) == plain(everything(autoscaler)), autoscaler
    assert "1 chart(s) linted, 0 chart(s) failed" in said(helm, "lint", str(chart))


@thoroughness(max_examples=15)
@given(
    model=st.one_of(st.sampled_from(NASTY), st.text(st.characters(codec="utf-8"), max_size=30)),
    variable=st.one_of(
        st.sampled_from(NASTY), st.text(st.characters(codec="utf-8", exclude_characters="\0"))
    ),
)
@example(model=" ".join(NASTY), variable="\n".join(NASTY))
@example(model="{{ fail `x` }}", variable="1e3")
def test_no_name_and_no_value_breaks_out_of_the_chart(
    helm: str, tmp_path_factory: pytest.TempPathFactory, model: str, variable: str
) -> None:
    workload = replace(everything(), model_name=model, environment={"SAID": variable})
    chart = unpack(workload, Form.HELM, tmp_path_factory.mktemp("chart"))
    assert templated(helm, chart) == plain(workload)
    (server,) = plain(workload)["Deployment", "fraud-scorer"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "SAID", "value": variable} in server["env"]


def test_the_chart_s_values_reach_what_they_name(helm: str, tmp_path: Path) -> None:
    chart = unpack(everything(), Form.HELM, tmp_path)
    found = templated(
        helm, chart, "--set", "image=mirror.example.com/model:2", "--set", "autoscaling.maxReplicas=7",
        "--set", "resources.requests.memory=3Gi", "--set", "fetch.url=https://other.example.com/",
        "--set", "fetch.image=mirror.example.com/fetch:1", "--set", "pullSecret.token=t",
        "--set", "pullSecret.name=theirs", "--set", "imagePullSecrets[0].name=mirror", namespace="staging",
    )  # fmt: skip
    assert {one["metadata"]["namespace"] for one in found.values()} == {"staging"}
    pod = found["Deployment", "fraud-scorer"]["spec"]["template"]["spec"]
    (server,), (fetch,) = pod["containers"], pod["initContainers"]
    assert (server["image"], fetch["image"]) == ("mirror.example.com/model:2", "mirror.example.com/fetch:1")
    assert server["resources"]["requests"] == EVERYTHING_REQUESTS | {"memory": "3Gi"}
    assert fetch["args"] == [f"https://other.example.com/pull/{'0' * 64}/", f"/models/{'0' * 64}"]
    assert pod["imagePullSecrets"] == [{"name": "mirror"}]
    assert {"secretName": "theirs", "defaultMode": 0o440} in [one.get("secret") for one in pod["volumes"]]
    assert found["Secret", "theirs"]["stringData"] == {"token": "t"}
    assert found["HorizontalPodAutoscaler", "fraud-scorer"]["spec"]["maxReplicas"] == 7
    theirs = templated(helm, chart, "--set", "pullSecret.create=false")
    assert "Secret" not in {kind for kind, _ in theirs}
    fixed = unpack(everything("none"), Form.HELM, tmp_path / "fixed")
    assert (
        templated(helm, fixed, "--set", "replicas=5")["Deployment", "fraud-scorer"]["spec"]["replicas"] == 5
    )


EVERYTHING_REQUESTS = {"cpu": "500m", "memory": "1Gi", "nvidia.com/gpu": "1"}


def test_kustomize_says_the_same_as_the_plain_yaml(kubectl: str, tmp_path: Path) -> None:
    for workload in (
        everything(),
        replace(scaled(cluster_workload(4)), environment={"SAID": "\n".join(PRINTABLE)}),
    ):
        base = unpack(workload, Form.KUSTOMIZE, tmp_path)
        assert by_ref(said(kubectl, "kustomize", str(base))) == plain(workload)
        shutil.rmtree(base)


def test_an_overlay_of_kustomize_changes_image_and_namespace(kubectl: str, tmp_path: Path) -> None:
    unpack(everything(), Form.KUSTOMIZE, tmp_path)
    overlay = tmp_path / "staging"
    overlay.mkdir()
    image = {"name": "registry.example.com:5000/team/model", "newName": "mirror/model", "newTag": "2"}
    change = {"resources": ["../fraud-scorer"], "namespace": "staging", "images": [image]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(change))
    found = by_ref(said(kubectl, "kustomize", str(overlay)))
    assert {one["metadata"]["namespace"] for one in found.values()} == {"staging"}
    (server,) = found["Deployment", "fraud-scorer"]["spec"]["template"]["spec"]["containers"]
    assert server["image"] == "mirror/model:2"


@pytest.mark.parametrize("form", [Form.KUSTOMIZE, Form.HELM])
def test_a_package_has_one_file_for_each_object(form: Form, tmp_path: Path) -> None:
    folder = unpack(everything(), form, tmp_path)
    files = [*folder.glob("objects/*" if form is Form.HELM else "*-*.yaml")]
    assert {live.ref(yaml.safe_load(one.read_text())) for one in files} == plain(everything()).keys()
    if form is Form.KUSTOMIZE:
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
        assert sorted(kustomization["resources"]) == sorted(one.name for one in files)
        assert [one["name"] for one in kustomization["images"]] == [
            "registry.example.com:5000/team/model", "slipway/replica-fastapi",
        ]  # fmt: skip
