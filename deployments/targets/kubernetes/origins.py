"""Deployments that others made in the namespace: reading them, leading their callers to ours, and back.

Nothing of theirs is deleted, and what is written is little: where their Services lead, and how many replicas they
have. Each write is conditional on the object being as it was read, and refused to a writer that was overtaken.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from controlplane.core.errors import NotFound
from deployments.domain.origin import Handover, Origin, OriginService, Other, Reading
from deployments.domain.plan import Finding, diff, digest
from deployments.domain.workload import TargetStatus
from deployments.targets.kubernetes import live as cluster
from deployments.targets.kubernetes import names, reading
from deployments.targets.kubernetes.api import Api, Object, last_lines
from deployments.targets.kubernetes.kinds import DEPLOYMENT, HPA, POD, SCALED_OBJECT, SERVICE, Kind
from deployments.targets.kubernetes.seen import replica_of
from deployments.targets.kubernetes.writing import stale

MARK = f"{names.PREFIX}handover"
"""On an object of others that was written: the key and generation of the deployment that wrote it last."""
_HTTP = "http"
"""The port of ours by its name."""


class Origins:
    """See `deployments.targets.port.Origins`."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    def all(self) -> tuple[Other, ...]:
        services, scalers = self._services(), self._scalers()
        found = self._api.list(DEPLOYMENT, self._namespace).items
        return tuple(reading.other(one, services, scalers) for one in found if not reading.is_ours(one))

    def read(self, name: str) -> Reading:
        return reading.read(self._found(name), self._services(), self._scalers())

    def observe(self, origin: Origin, *, key: str) -> TargetStatus:
        deployment = self._found(origin.name, uid=origin.uid)
        services = reading.leading_to(deployment, self._services())
        return TargetStatus(
            key=key,
            generation=-1,
            address=f"http://{services[0]['metadata']['name']}.{self._namespace}.svc" if services else None,
            replicas=tuple(map(replica_of, self._pods(deployment))),
            observed_at=datetime.now(UTC),
            wanted=int(deployment["spec"].get("replicas", 1)),
        )

    def logs(self, origin: Origin, *, replica: str, tail: int = 200) -> tuple[str, ...]:
        pods = self._pods(self._found(origin.name, uid=origin.uid))
        pod = next((one for one in pods if one["metadata"]["name"] == replica), None)
        if pod is None:
            raise NotFound("no_such_replica", f"{origin.name} has no replica {replica}.")
        container = pod["spec"]["containers"][0]["name"]
        return last_lines(self._api, pod, [(container, False), (container, True)], tail=tail)

    def plan(self, origin: Origin, *, key: str) -> Handover:
        deployment = self._found(origin.name, uid=origin.uid)
        services = reading.leading_to(deployment, self._services())
        ours = {names.KEY: key}
        before = {_ref(one): cluster.cleaned(one) for one in (deployment, *services)}
        stopped = deepcopy(deployment)
        stopped["spec"]["replicas"] = 0
        after = {_ref(one): cluster.cleaned(_merged(one, _to_ours(one, ours))) for one in services}
        # Its size is an autoscaler's business, but here it is ours to say.
        after[_ref(deployment)] = cluster.cleaned(stopped)
        for one, size in ((before, deployment["spec"].get("replicas", 1)), (after, 0)):
            one[_ref(deployment)]["spec"]["replicas"] = size
        return Handover(
            changes=diff(before, after),
            findings=tuple(self._findings(deployment, services)),
            digest=digest([one for ref, one in sorted(before.items()) if ref != _ref(deployment)]),
        )

    def services(self, origin: Origin) -> tuple[OriginService, ...]:
        found = reading.leading_to(self._found(origin.name, uid=origin.uid), self._services())
        return tuple(
            OriginService(
                name=one["metadata"]["name"],
                selector=dict(one["spec"]["selector"]),
                ports=tuple(one["spec"].get("ports") or ()),
            )
            for one in found
        )

    def divert(self, origin: Origin, *, key: str, generation: int) -> None:
        """A rollout may keep its new replicas from callers, or the old ones: then from these callers, too."""
        selector = self._own_selector(key)
        for known in self._noted(origin):
            self._write(SERVICE, known, _to_ours(known, selector), key=key, generation=generation)

    def restore(self, origin: Origin, *, key: str, generation: int) -> None:
        for known in self._noted(origin):
            self._write(SERVICE, known, _to_theirs(known, origin), key=key, generation=generation)

    def resize(self, origin: Origin, replicas: int, *, key: str, generation: int) -> None:
        known = self._found(origin.name, uid=origin.uid)
        self._write(DEPLOYMENT, known, {"spec": {"replicas": replicas}}, key=key, generation=generation)

    # How it does it

    def _found(self, name: str, *, uid: str = "") -> Object:
        found = self._api.find(DEPLOYMENT, name, self._namespace)
        if found is None or reading.is_ours(found) or uid not in ("", found["metadata"].get("uid")):
            raise NotFound(
                "no_such_origin",
                f"There is no Deployment {name} of others in the namespace {self._namespace}.",
                "It was deleted, or is another one of that name by now.",
            )
        return found | {"kind": DEPLOYMENT.kind, "apiVersion": DEPLOYMENT.api_version}

    def _services(self) -> list[Object]:
        return self._api.list(SERVICE, self._namespace).items

    def _scalers(self) -> list[Object]:
        found = self._api.list(HPA, self._namespace).items
        with suppress(NotFound):  # no KEDA here
            found += self._api.list(SCALED_OBJECT, self._namespace).items
        return found

    def _pods(self, deployment: Object) -> list[Object]:
        """Of its own selector, which is immutable and so tells its pods from those of others."""
        chosen = deployment["spec"]["selector"].get("matchLabels") or {}
        labels = ",".join(f"{name}={value}" for name, value in sorted(chosen.items()))
        found = self._api.list(POD, self._namespace, labels=labels).items if labels else []
        return sorted(found, key=lambda one: str(one["metadata"]["name"]))

    def _own_selector(self, key: str) -> dict[str, str]:
        """Of the Service for callers; those behind a route are longer by the name of a slot."""
        found = self._api.list(SERVICE, self._namespace, labels=names.selector(key)).items
        found.sort(key=lambda one: len(one["metadata"]["name"]))
        return dict(found[0]["spec"]["selector"]) if found else {names.KEY: key}

    def _noted(self, origin: Origin) -> Iterator[Object]:
        """One that was deleted meanwhile leads nowhere by somebody's will."""
        for one in origin.services:
            known = self._api.find(SERVICE, one.name, self._namespace)
            if known is not None:
                yield known

    def _write(self, kind: Kind, known: Object, change: dict[str, Any], *, key: str, generation: int) -> None:
        """A merge patch of the object as it was read. It is marked with whose change it is, and a writer that was
        overtaken finds a newer mark, or that the object has moved."""
        if _merged(known, change) == known:
            return
        whose, _, newest = (known["metadata"].get("annotations") or {}).get(MARK, "").partition("/")
        if whose == key and newest.isdecimal() and generation < int(newest):
            raise stale(generation, int(newest))
        mark = {
            "annotations": {MARK: f"{key}/{generation}"},
            "resourceVersion": known["metadata"]["resourceVersion"],
        }
        self._api.merge(kind, known["metadata"]["name"], self._namespace, _merged(change, {"metadata": mark}))

    def _findings(self, deployment: Object, services: list[Object]) -> Iterator[Finding]:
        name = deployment["metadata"]["name"]
        if not services:
            yield Finding.warning(
                "no_service_of_origin",
                f"No Service leads to {name}.",
                "Taking over moves Services; callers that ask its pods in another way would find none.",
                "Tell them the address of the new Service.",
            )
        others = [
            one for one in self._api.list(DEPLOYMENT, self._namespace).items if not reading.is_ours(one)
        ]
        for one in services:
            yield from _of_service(one)
            shared = [each["metadata"]["name"] for each in others if reading.leading_to(each, [one])]
            if rest := ", ".join(each for each in shared if each != name):
                yield Finding.warning(
                    "service_shared",
                    f"Service {one['metadata']['name']} leads to {rest} as well.",
                    "Taking over leads all of its callers to Slipway's replicas, and none to those any more.",
                    "Give them a Service of their own if they are to go on.",
                )
        for one in (deployment, *services):
            if keeper := reading.kept_by(one):
                yield Finding.warning(
                    "kept_by_another_tool",
                    f"{keeper} keeps {one['kind']} {one['metadata']['name']}.",
                    "It may write back what taking over changes, and callers would find no replica.",
                    "Take it out of its source, or switch its self-healing off, before you take over.",
                )
        scaler = reading.scaler_of(deployment, self._scalers())
        if scaler is not None and scaler["kind"] == SCALED_OBJECT.kind:
            yield Finding.warning(
                "origin_scaled_from_zero",
                f"KEDA would start {name} again.",
                f"ScaledObject {scaler['metadata']['name']} scales from zero, too.",
                "Pause it: annotate it with autoscaling.keda.sh/paused=true.",
            )


def _of_service(one: Object) -> Iterator[Finding]:
    name, ports = one["metadata"]["name"], one["spec"].get("ports") or ()
    others = sorted({str(port.get("protocol", "TCP")) for port in ports} - {"TCP"})
    if others:
        yield Finding.error(
            "service_not_http",
            f"Service {name} takes {' and '.join(others)}.",
            "Slipway's replicas speak HTTP over TCP.",
            "Give its other protocols a Service of their own.",
        )
    elif len(ports) > 1:
        named = ", ".join(str(port.get("name") or port.get("port")) for port in ports)
        yield Finding.warning(
            "several_ports",
            f"Service {name} has {len(ports)} ports.",
            f"All of them ({named}) would lead to the one HTTP port of the replicas.",
            "Go on if that is right: metrics are on that port, too. gRPC is not.",
        )


def _to_ours(service: Object, selector: dict[str, str]) -> dict[str, Any]:
    """As a merge patch, in which None takes away."""
    return _led(service, selector, [one | {"targetPort": _HTTP} for one in _ports(service)])


def _to_theirs(service: Object, origin: Origin) -> dict[str, Any]:
    """A port that somebody added meanwhile stays as it is."""
    noted = next(one for one in origin.services if one.name == service["metadata"]["name"])
    led = {_port(one): one.get("targetPort") for one in noted.ports}
    ports = [one | {"targetPort": led.get(_port(one), one.get("targetPort"))} for one in _ports(service)]
    return _led(service, noted.selector, ports)


def _led(service: Object, selector: dict[str, str], ports: list[Object]) -> dict[str, Any]:
    gone = dict.fromkeys(service["spec"].get("selector") or {})
    return {"spec": {"selector": gone | selector, "ports": ports}}


def _ports(service: Object) -> list[Object]:
    return service["spec"].get("ports") or []


def _port(port: Object) -> tuple[int, str]:
    return port["port"], port.get("protocol", "TCP")


def _merged(one: Any, change: Any) -> Any:
    """RFC 7396."""
    if not isinstance(change, Mapping):
        return change
    found = dict(one) if isinstance(one, Mapping) else {}
    for name, value in change.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = _merged(found.get(name), value)
    return found


def _ref(one: Mapping[str, Any]) -> str:
    return " ".join(cluster.ref(one))
