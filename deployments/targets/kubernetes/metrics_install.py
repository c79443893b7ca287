"""The metrics API in a cluster: what registers it there, who answers instead, and what installing it would change.

A cluster has one external.metrics.k8s.io, and one that does not answer breaks discovery everywhere in it. So nothing
is taken from another product, and nothing is applied that was not shown first. Refused: running the process there;
the chart does that, and elsewhere it is one of Slipway's own processes.
"""

import base64
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.core.errors import Conflict, InvalidInput, NotFound, PreconditionFailed
from deployments.domain.plan import Change, diff, digest
from deployments.targets.kubernetes import kinds, names, pem
from deployments.targets.kubernetes.api import Api, Object
from deployments.targets.kubernetes.kinds import Kind
from deployments.targets.kubernetes.live import cleaned
from deployments.targets.kubernetes.rights import Right
from deployments.telemetry.signals import SignalName

GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
SERVICE = "slipway-metrics-api"
READER = "slipway-metrics-reader"
PORT = 8443
"""At which the process listens, in the chart's pods and elsewhere."""
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DNS = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
_KINDS = {
    one.kind: one
    for one in (
        kinds.SERVICE, kinds.ENDPOINTS, kinds.CLUSTER_ROLE, kinds.CLUSTER_ROLE_BINDING, kinds.API_SERVICE,
    )
}  # fmt: skip
CHANGE = ("get", "create", "patch")
INSTALLING = (
    Right(
        kinds.API_SERVICE,
        ("create", "patch"),
        "Says to the cluster that Slipway answers its autoscalers.",
        optional=True,
        names=(kinds.EXTERNAL_METRICS,),
    ),
    Right(
        kinds.SERVICE,
        CHANGE,
        "The way to Slipway's process, in the namespace of its Service.",
        optional=True,
        names=(SERVICE,),
        everywhere=True,
    ),
    Right(
        kinds.ENDPOINTS,
        CHANGE,
        "As above, where Slipway has a numeric address outside of the cluster.",
        optional=True,
        names=(SERVICE,),
        everywhere=True,
    ),
    Right(kinds.CLUSTER_ROLE, CHANGE, "Lets the autoscaler ask.", optional=True, names=(READER,)),
    Right(kinds.CLUSTER_ROLE_BINDING, CHANGE, "As above.", optional=True, names=(READER,)),
    *(
        Right(
            Kind("ExternalMetricValueList", f"{GROUP}/{VERSION}", signal.value, namespaced=False),
            ("get", "list"),
            "Nobody may grant what they do not hold.",
            optional=True,
        )
        for signal in SignalName
    ),
)
"""What the button needs besides `rights.RIGHTS`. An admin with kubectl can do without: the page prints the objects."""


@dataclass(frozen=True, kw_only=True)
class MetricsApi:
    """`namespace` has the Service. `outside` is HOST:PORT of Slipway's process where it does not run in this cluster,
    and empty where the chart's pods are asked. `ca_pem` signed the certificate of that process, which must name
    `server_name`.

    Raises InvalidInput about the field.
    """

    namespace: str
    ca_pem: str
    outside: str = ""

    def __post_init__(self) -> None:
        if not _LABEL.fullmatch(self.namespace):
            raise _wrong(
                "namespace", "Use the name of a namespace: lower-case letters, digits and inner dashes."
            )
        if trouble := pem.trouble(self.ca_pem):
            raise _wrong("ca_pem", trouble)
        if self.outside:
            _ = self.address

    @property
    def server_name(self) -> str:
        """What the cluster calls the process by, whatever its address is."""
        return f"{SERVICE}.{self.namespace}.svc"

    @property
    def address(self) -> tuple[str, int]:
        """Raises InvalidInput."""
        host, _, port = self.outside.rpartition(":")
        usable = port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= 65535
        if not usable or not (_ip(host) or _DNS.fullmatch(host)):
            raise _wrong("outside", f"Write HOST:PORT, such as slipway.example.com:{PORT}.")
        return host.strip("[]"), int(port)


def _wrong(field: str, sentence: str) -> InvalidInput:
    title = "The metrics API cannot be installed like that."
    return InvalidInput("invalid_metrics_api", title, sentence, fields={field: [sentence]})


def _ip(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return ""


@dataclass(frozen=True, kw_only=True)
class Provider:
    """Who answers the autoscalers of a cluster. `service` is NAMESPACE/NAME; `trouble` is the cluster's own word on
    why it does not answer, empty if it does."""

    service: str
    ours: bool
    trouble: str = ""


def provider(api: Api) -> Provider | None:
    """None where nobody does. Raises what `Api.find` raises."""
    found = api.find(kinds.API_SERVICE, kinds.EXTERNAL_METRICS, None)
    if found is None:
        return None
    reference = found["spec"].get("service") or {}
    broken = [
        f"{one.get('reason')}: {one.get('message')}"
        for one in (found.get("status") or {}).get("conditions") or ()
        if one.get("type") == "Available" and one.get("status") != "True"
    ]
    service = f"{reference.get('namespace')}/{reference.get('name')}"
    return Provider(service=service, ours=_is_ours(found), trouble=next(iter(broken), ""))


def _is_ours(found: Object) -> bool:
    """From here, or from Slipway's chart."""
    labels = found["metadata"].get("labels") or {}
    return (
        labels.get(names.MANAGED_BY) == names.MANAGER or labels.get("app.kubernetes.io/name") == names.MANAGER
    )


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What it would change. `etag` names what stood there; applying must bring it."""

    manifests: tuple[Object, ...]
    diff: tuple[Change, ...]
    etag: str


def render(wanted: MetricsApi, *, with_service: bool = True) -> tuple[Object, ...]:
    """In the order in which they are applied: the registration is last, when everything it names is there."""
    found = _service(wanted) if with_service else []
    return (*found, *_reader(), _registration(wanted))


def plan(api: Api, wanted: MetricsApi) -> Installation:
    """A dry run of each object. Raises Conflict("foreign_metrics_provider") where another product answers, NotFound
    where there is no such namespace, and what `Api` raises."""
    refuse_foreign(api)
    service = api.find(kinds.SERVICE, SERVICE, wanted.namespace)
    theirs = service is not None and (service["metadata"].get("labels") or {}).get(names.MANAGED_BY) not in (
        None,
        names.MANAGER,
    )
    manifests = render(wanted, with_service=not theirs)
    before, after = {}, {}
    for one in manifests:
        kind, where = _KINDS[one["kind"]], one["metadata"].get("namespace")
        ref = f"{one['kind']} {one['metadata']['name']}"
        now = api.find(kind, one["metadata"]["name"], where)
        if now is not None:
            before[ref] = cleaned(now)
        after[ref] = cleaned(_would_be(api, kind, one, wanted))
    return Installation(
        manifests=manifests, diff=diff(before, after), etag=digest([wanted.__dict__, before])[:32]
    )


def _would_be(api: Api, kind: Kind, manifest: Object, wanted: MetricsApi) -> Object:
    try:
        return api.apply(kind, manifest, dry_run=True, force=True)
    except NotFound as error:
        if kind.namespaced:
            raise _no_namespace(wanted) from error
        # Whether an account may bind a role is judged by the role, which is not there before the first time.
        return manifest


def install(api: Api, wanted: MetricsApi, *, etag: str) -> Installation:
    """Applies what `plan` showed, and returns it. Raises PreconditionFailed where that has moved, and what `plan`
    raises."""
    shown = plan(api, wanted)
    if etag != shown.etag:
        raise PreconditionFailed(
            "live_moved", "What stands in the cluster has changed since this was shown.", "Look at it again."
        )
    for one in shown.manifests:
        api.apply(_KINDS[one["kind"]], one, force=True)
    return shown


def refuse_foreign(api: Api) -> None:
    """Raises Conflict that says who, and what to do instead."""
    found = provider(api)
    if found is not None and not found.ours:
        raise Conflict(
            "foreign_metrics_provider",
            "Another product answers the autoscalers of this cluster.",
            f"The APIService {kinds.EXTERNAL_METRICS} is served by {found.service}, and a cluster has only one. "
            "Choose KEDA as a revision's autoscaler (it asks Slipway itself), or Slipway's own loop.",
            extra={"service": found.service},
        )


def _no_namespace(wanted: MetricsApi) -> NotFound:
    return NotFound(
        "namespace_missing",
        f"There is no namespace {wanted.namespace} in this cluster.",
        f"kubectl create namespace {wanted.namespace}, or name the one that has the Service.",
        fields={"namespace": ["The cluster has no such namespace."]},
    )


def _labels() -> dict[str, str]:
    return {names.MANAGED_BY: names.MANAGER, "app.kubernetes.io/name": names.MANAGER}


def _service(wanted: MetricsApi) -> list[Object]:
    metadata = {"name": SERVICE, "namespace": wanted.namespace, "labels": _labels()}
    document: Object = {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
    if not wanted.outside:
        pods = {"app.kubernetes.io/name": names.MANAGER, "app.kubernetes.io/component": "metrics-api"}
        ports = [{"name": "https", "port": 443, "targetPort": PORT, "protocol": "TCP"}]
        return [document | {"spec": {"selector": pods, "ports": ports}}]
    host, port = wanted.address
    if not (ip := _ip(host)):
        return [document | {"spec": {"type": "ExternalName", "externalName": host}}]
    ports = [{"name": "https", "port": 443, "targetPort": port, "protocol": "TCP"}]
    subsets = [{"addresses": [{"ip": ip}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]
    endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}
    return [document | {"spec": {"ports": ports}}, endpoints]


def _reader() -> list[Object]:
    """The autoscaler is one of two accounts, by how its controller-manager was started."""
    api = "rbac.authorization.k8s.io"
    metadata = {"name": READER, "labels": _labels()}
    rules: Sequence[Mapping[str, Any]] = [
        {"apiGroups": [GROUP], "resources": [one.value for one in SignalName], "verbs": ["get", "list"]}
    ]
    subjects = [
        {"apiGroup": api, "kind": "User", "name": "system:kube-controller-manager"},
        {"kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system"},
    ]
    reference = {"apiGroup": api, "kind": "ClusterRole", "name": READER}
    return [
        {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rules},
        {"apiVersion": f"{api}/v1", "kind": "ClusterRoleBinding", "metadata": metadata, "roleRef": reference,
         "subjects": subjects},
    ]  # fmt: skip


def _registration(wanted: MetricsApi) -> Object:
    named = wanted.outside and not _ip(wanted.address[0])
    port = wanted.address[1] if named else 443  # an ExternalName maps no ports
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": kinds.EXTERNAL_METRICS, "labels": _labels()},
        "spec": {
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"namespace": wanted.namespace, "name": SERVICE, "port": port},
            "caBundle": base64.b64encode(wanted.ca_pem.encode()).decode(),
        },
    }
