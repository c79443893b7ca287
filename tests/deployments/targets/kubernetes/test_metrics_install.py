"""The metrics API is registered as it was shown, never over another product's, and in ways that the cluster follows."""

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.errors import Conflict, InvalidInput, NotFound, PreconditionFailed
from deployments.domain.plan import Op
from deployments.targets.kubernetes import kinds, metrics_install, written
from deployments.targets.kubernetes.metrics_install import MetricsApi
from tests.deployments.targets.kubernetes.certificates import Authority
from tests.deployments.targets.kubernetes.room import Room


def _pem() -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return Authority.make(Path(folder)).path.read_text()


PEM = _pem()


def wanted(namespace: str, *, outside: str = "metrics.example.com:8443") -> MetricsApi:
    return MetricsApi(namespace=namespace, ca_pem=PEM, outside=outside)


def spec_of(manifests: tuple[Any, ...], kind: str) -> Any:
    return next(one for one in manifests if one["kind"] == kind).get("spec")


@pytest.fixture
def clean(room: Room) -> Iterator[Room]:
    yield room
    for kind, name, where in (
        (kinds.API_SERVICE, kinds.EXTERNAL_METRICS, None),
        (kinds.CLUSTER_ROLE_BINDING, metrics_install.READER, None),
        (kinds.CLUSTER_ROLE, metrics_install.READER, None),
        (kinds.SERVICE, metrics_install.SERVICE, room.namespace),
        (kinds.ENDPOINTS, metrics_install.SERVICE, room.namespace),
    ):
        room.api.delete(kind, name, where)


@pytest.mark.parametrize("outside", ["", "metrics.example.com:8443", "192.0.2.7:9443", "[2001:db8::7]:9443"])
def test_what_is_rendered_is_valid_and_verifies_the_certificate(outside: str) -> None:
    manifests = metrics_install.render(wanted("slipway", outside=outside))
    for one in manifests:
        if one["kind"] != "APIService":
            kubernetes_validate.validate(one, "1.36", strict=True)
    registration = spec_of(manifests, "APIService")
    assert base64.b64decode(registration["caBundle"]).decode() == PEM
    assert "insecureSkipTLSVerify" not in registration
    assert registration["service"]["namespace"] == "slipway"
    assert list(yaml.safe_load_all(written.documents(manifests))) == list(manifests)


def test_a_name_becomes_an_external_name_and_a_number_becomes_endpoints() -> None:
    named = metrics_install.render(wanted("slipway"))
    assert spec_of(named, "Service") == {"type": "ExternalName", "externalName": "metrics.example.com"}
    assert spec_of(named, "APIService")["service"]["port"] == 8443
    numbered = metrics_install.render(wanted("slipway", outside="192.0.2.7:9443"))
    assert spec_of(numbered, "APIService")["service"]["port"] == 443
    subsets = next(one for one in numbered if one["kind"] == "Endpoints")["subsets"]
    assert (subsets[0]["addresses"][0]["ip"], subsets[0]["ports"][0]["port"]) == ("192.0.2.7", 9443)
    assert "selector" not in spec_of(numbered, "Service")


def test_it_is_shown_applied_and_then_changes_nothing(clean: Room) -> None:
    shown = metrics_install.plan(clean.api, wanted(clean.namespace))
    assert shown.diff
    assert {one.op for one in shown.diff} == {Op.ADD}
    assert metrics_install.provider(clean.api) is None
    metrics_install.install(clean.api, wanted(clean.namespace), etag=shown.etag)
    found = metrics_install.provider(clean.api)
    assert found is not None
    assert (found.ours, found.service) == (True, f"{clean.namespace}/{metrics_install.SERVICE}")
    assert metrics_install.plan(clean.api, wanted(clean.namespace)).diff == ()


def test_what_was_shown_is_what_is_applied(clean: Room) -> None:
    shown = metrics_install.plan(clean.api, wanted(clean.namespace))
    other = wanted(clean.namespace, outside="elsewhere.example.com:8443")
    with pytest.raises(PreconditionFailed, match="changed since"):
        metrics_install.install(clean.api, other, etag=shown.etag)
    metrics_install.install(clean.api, wanted(clean.namespace), etag=shown.etag)
    with pytest.raises(PreconditionFailed, match="changed since"):
        metrics_install.install(clean.api, wanted(clean.namespace), etag=shown.etag)


def test_another_product_s_registration_is_left_alone_and_named(clean: Room) -> None:
    theirs = metrics_install.render(wanted("keda"))[-1]
    theirs["metadata"]["labels"] = {"app.kubernetes.io/name": "keda-operator"}
    theirs["spec"]["service"]["name"] = "keda-metrics"
    clean.api.create(kinds.API_SERVICE, theirs, None)
    with pytest.raises(Conflict, match=r"keda/keda-metrics.*Choose KEDA"):
        metrics_install.plan(clean.api, wanted(clean.namespace))
    with pytest.raises(Conflict):
        metrics_install.install(clean.api, wanted(clean.namespace), etag="x")
    kept = clean.api.get(kinds.API_SERVICE, kinds.EXTERNAL_METRICS, None)
    assert kept["spec"]["service"]["name"] == "keda-metrics"


def test_the_chart_s_service_is_used_and_not_taken_over(clean: Room) -> None:
    labels = {"app.kubernetes.io/name": "slipway", "app.kubernetes.io/managed-by": "Helm"}
    document = {
        "metadata": {"name": metrics_install.SERVICE, "labels": labels},
        "spec": {"ports": [{"port": 443, "targetPort": 8443}]},
    }
    clean.api.create(kinds.SERVICE, document, clean.namespace)
    inside = wanted(clean.namespace, outside="")
    shown = metrics_install.plan(clean.api, inside)
    assert "Service" not in [one["kind"] for one in shown.manifests]
    metrics_install.install(clean.api, inside, etag=shown.etag)
    kept = clean.api.get(kinds.SERVICE, metrics_install.SERVICE, clean.namespace)
    assert kept["metadata"]["labels"] == labels


@pytest.mark.processes
def test_a_namespace_that_is_not_there_is_said(kubernetes_real: Room) -> None:
    with pytest.raises(NotFound, match="kubectl create namespace nowhere"):
        metrics_install.plan(kubernetes_real.api, wanted("nowhere"))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"namespace": "Not a name"}, "namespace"),
        ({"namespace": ""}, "namespace"),
        ({"ca_pem": "hello"}, "ca_pem"),
        ({"ca_pem": PEM + "-----BEGIN PRIVATE KEY-----"}, "ca_pem"),
        ({"outside": "no-port"}, "outside"),
        ({"outside": "host:0"}, "outside"),
        ({"outside": "host:99999999999"}, "outside"),
        ({"outside": "https://host:443"}, "outside"),
    ],
)
def test_what_cannot_be_installed_is_refused_by_its_field(change: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        replace(wanted("slipway"), **change)
    assert list(refused.value.fields) == [field]


@given(st.text(), st.text(), st.text())
def test_nothing_that_is_typed_is_more_than_refused(namespace: str, pem: str, outside: str) -> None:
    for said in ({"namespace": namespace}, {"ca_pem": pem}, {"outside": outside}):
        try:
            metrics_install.render(replace(wanted("slipway"), **said))
        except InvalidInput:
            continue
