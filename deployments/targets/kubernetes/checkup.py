"""Whether a cluster can be used: asked when a person looks, answered in sentences, never waiting long.

Each question stands for itself; one that is not answered is said to be unknown. Once the cluster is silent nothing
more is asked, so that a hanging one costs seconds and not a minute. Refused: keeping the answers; a report that is
an hour old looks like one of now.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from controlplane.core.errors import Conflict, NotFound, SlipwayError, Unprocessable
from deployments.domain.plan import Finding, Severity
from deployments.domain.wire import Document
from deployments.targets.kubernetes import complaints, kinds, metrics_install, permissions
from deployments.targets.kubernetes.api import Api
from deployments.targets.kubernetes.permissions import Missing
from deployments.targets.kubernetes.render.place import Place

CONNECT_S, READ_S = 2.0, 4.0


@dataclass(frozen=True, kw_only=True)
class Report(Document):
    """`latency_ms` is one small answer on a connection that stands. `missing` are rights that a rollout needs,
    `missing_optional` those that something is looked up with, both as “verb resource”. What the cluster does not let
    us ask is None. `metrics_provider` is the NAMESPACE/NAME that answers autoscalers, empty for nobody."""

    reachable: bool
    server: str = ""
    version: str = ""
    latency_ms: float | None = None
    identity: str = ""
    namespace: str = ""
    namespace_exists: bool | None = None
    missing: tuple[str, ...] = ()
    missing_optional: tuple[str, ...] = ()
    metrics_provider: str | None = None
    metrics_provider_is_slipway: bool = False
    gateway_api: bool | None = None
    keda: bool | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def usable(self) -> bool:
        return self.reachable and not any(one.severity is Severity.ERROR for one in self.findings)


def unreachable(error: SlipwayError, *, server: str = "", namespace: str = "") -> Report:
    """A report of one sentence."""
    finding = Finding.error(
        error.code,
        error.title,
        error.detail,
        "Mend the access, or replace the kubeconfig, and test again.",
    )
    return Report(reachable=False, server=server, namespace=namespace, findings=(finding,))


def look(api: Api, place: Place) -> Report:
    """Never raises a SlipwayError: each is a finding. About a hundred small questions, a few at a time."""
    server = api.connection.server
    try:
        found: dict[str, Any] = {"server": server, "namespace": place.namespace} | _version(api)
        findings = [*_asked(lambda: _fill(found, identity=_identity(api)))]
        findings += _asked(lambda: _fill(found, **_namespace(api, place)))
        findings += _asked(lambda: _fill(found, **_rights(api, place)))
        findings += _asked(lambda: _fill(found, **_products(api)))
        findings += _asked(lambda: _fill(found, **_provider(api)))
    except SlipwayError as error:
        return unreachable(error, server=server, namespace=place.namespace)
    report = Report(reachable=True, **found)
    judged = (*_findings(report), *complaints.address(place), *findings)
    return Report(reachable=True, **found, findings=judged)


def _fill(found: dict[str, Any], **more: Any) -> None:
    found |= more


def _asked(question: Callable[[], None]) -> Iterator[Finding]:
    """What the cluster does not let us ask, or does not know, is said to be unknown."""
    try:
        question()
    except (Conflict, NotFound, Unprocessable) as error:
        yield complaints.not_known(error)


def _version(api: Api) -> dict[str, Any]:
    """Asked twice: the first answer pays for the connection."""
    api.raw("/version")
    begun = time.perf_counter()
    answer = api.raw("/version")
    latency_ms = round((time.perf_counter() - begun) * 1000, 1)
    version = str(_document(answer).get("gitVersion", ""))[:60]
    if not version:
        raise Conflict(
            "no_cluster_there",
            "Something answers at this address, but it is no Kubernetes API.",
            f"{api.connection.server}/version has no gitVersion.",
        )
    return {"version": version, "latency_ms": latency_ms}


def _document(answer: bytes) -> dict[str, Any]:
    try:
        found = json.loads(answer)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _identity(api: Api) -> str:
    """Empty where the cluster is older than the question (1.28)."""
    kind = kinds.SELF_REVIEW
    try:
        answer = api.create(kind, {"apiVersion": kind.api_version, "kind": kind.kind}, None)
    except NotFound:
        return ""
    return str(((answer.get("status") or {}).get("userInfo") or {}).get("username", ""))[:300]


def _namespace(api: Api, place: Place) -> dict[str, Any]:
    return {"namespace_exists": api.find(kinds.NAMESPACE, place.namespace, None) is not None}


def _rights(api: Api, place: Place) -> dict[str, Any]:
    found = permissions.missing(api, place.namespace)
    return {"missing": found.needed, "missing_optional": found.optional}


def _products(api: Api) -> dict[str, Any]:
    groups = {str(one.get("name")) for one in _document(api.raw("/apis")).get("groups") or ()}
    return {"gateway_api": kinds.HTTP_ROUTE.group in groups, "keda": kinds.SCALED_OBJECT.group in groups}


def _provider(api: Api) -> dict[str, Any]:
    found = metrics_install.provider(api)
    return {
        "metrics_provider": found.service if found else "",
        "metrics_provider_is_slipway": bool(found and found.ours),
    }


def _findings(report: Report) -> Iterator[Finding]:
    if report.namespace_exists is False:
        yield complaints.namespace_missing(report.namespace)
    yield from complaints.rights(Missing(report.missing, report.missing_optional))
