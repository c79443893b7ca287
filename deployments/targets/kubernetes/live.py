"""What stands in the cluster of one deployment, read at once, and how it compares with what was rendered.

Pure but for `read`. Refused: comparing by a digest kept in an annotation, which cannot see what somebody else
changed.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from controlplane.core.errors import NotFound
from deployments.domain.drift import Drift
from deployments.domain.plan import digest
from deployments.targets.kubernetes import names
from deployments.targets.kubernetes.api import Api, Object
from deployments.targets.kubernetes.kinds import (
    CORE_KINDS,
    DEPLOYMENT,
    OPTIONAL_KINDS,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)

type Ref = tuple[str, str]
"""Kind and name."""

_SERVERS_OWN = (
    "managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink", "deletionTimestamp",
    "deletionGracePeriodSeconds",
)  # fmt: skip
_BOOKKEEPING = ("deployment.kubernetes.io/revision", names.GENERATION)
_NAMED_AS_IT = (SERVICE.kind, SERVICE_ACCOUNT.kind, DEPLOYMENT.kind)
"""Some of whose objects bear the deployment's own name."""
_NAMED_BY = ("name", "type", "mountPath", "key")


@dataclass(frozen=True)
class Live:
    """Every object of one deployment, by kind and name."""

    objects: Mapping[Ref, Object]

    def get(self, kind: Kind, name: str) -> Object | None:
        return self.objects.get((kind.kind, name))

    def of(self, kind: Kind) -> list[Object]:
        return [found for (named, _), found in sorted(self.objects.items()) if named == kind.kind]

    @property
    def generation(self) -> int:
        """The newest that any object carries; -1 where there is none."""
        return max((generation_of(one) for one in self.objects.values()), default=-1)

    @property
    def digest(self) -> str:
        """Of what was decided, not of what runs: a pod more or less does not move it."""
        return (
            digest({"/".join(ref): cleaned(one) for ref, one in self.objects.items()}) if self.objects else ""
        )


def read(api: Api, namespace: str, key: str) -> Live:
    """One call for each kind. What a cluster does not know (no KEDA, no Gateway API) has no objects. Secrets are asked
    for by name, so that Slipway needs no right to list those of others."""
    found: dict[Ref, Object] = {}
    for kind in (*CORE_KINDS, *OPTIONAL_KINDS):
        if kind is SECRET:
            continue
        with suppress(NotFound):
            for item in api.list(kind, namespace, labels=names.selector(key)).items:
                found[kind.kind, item["metadata"]["name"]] = item
    for name in sorted({names.pull_secret(name) for kind, name in found if kind in _NAMED_AS_IT}):
        secret = api.find(SECRET, name, namespace)
        if secret is not None and (secret["metadata"].get("labels") or {}).get(names.KEY) == key:
            secret |= {"kind": SECRET.kind, "apiVersion": SECRET.api_version}
            found[SECRET.kind, name] = secret
    return Live(found)


def generation_of(one: Mapping[str, Any]) -> int:
    """Of the wish that it was applied for; -1 where it says none."""
    text = (one["metadata"].get("annotations") or {}).get(names.GENERATION, "")
    return int(text) if text.isdecimal() else -1


def ref(manifest: Mapping[str, Any]) -> Ref:
    return manifest["kind"], manifest["metadata"]["name"]


def cleaned(one: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the server and controllers write, and without our own bookkeeping (the generation, the record of
    the wish): it moves with every apply and decides nothing. Lists whose entries have names are read by name, and what
    is secret only by its digest."""
    metadata = {name: value for name, value in one["metadata"].items() if name not in _SERVERS_OWN}
    annotations = {
        name: value for name, value in (metadata.get("annotations") or {}).items() if name not in _BOOKKEEPING
    }
    metadata.pop("annotations", None)
    found = {name: value for name, value in one.items() if name not in ("status", "metadata")}
    found["metadata"] = metadata | ({"annotations": annotations} if annotations else {})
    if one.get("kind") == DEPLOYMENT.kind and is_scaled(one):
        found["spec"] = {name: value for name, value in found["spec"].items() if name != "replicas"}
    if names.RECORD in (metadata.get("labels") or {}):
        found.pop("data", None)
    if one.get("kind") == "Secret":
        found["data"] = _digests(one.get("data") or {})
    return {name: by_name(value) for name, value in found.items()}


def is_scaled(deployment: Mapping[str, Any]) -> bool:
    """Its size is not ours: nothing that was applied says it."""
    managed = deployment["metadata"].get("managedFields")
    if managed is None:
        return "replicas" not in deployment["spec"]
    ours = [one for one in managed if one.get("manager") == names.MANAGER and one.get("operation") == "Apply"]
    return not any("f:replicas" in (one.get("fieldsV1") or {}).get("f:spec", {}) for one in ours)


def by_name(value: Any) -> Any:
    match value:
        case Mapping():
            return {name: by_name(inner) for name, inner in value.items()}
        case list() if value and all(isinstance(one, Mapping) for one in value):
            for name in _NAMED_BY:
                keys = [one.get(name) for one in value]
                if all(isinstance(key, str) for key in keys) and len(set(keys)) == len(keys):
                    return {key: by_name(one) for key, one in zip(keys, value, strict=True)}
            return [by_name(one) for one in value]
    return value


def drift(manifests: Iterable[Mapping[str, Any]], live: Live) -> tuple[Drift, ...]:
    """What others changed or deleted of what we applied. Fields that we never set are theirs, and no drift."""
    found: list[Drift] = []
    for manifest in manifests:
        kind, name = ref(manifest)
        label, now = f"{kind} {name}", live.objects.get((kind, name))
        if now is None:
            found.append(Drift(object=label, path="", ours="present", live="deleted", owner=""))
            continue
        wanted = {part: value for part, value in manifest.items() if part not in ("metadata", "apiVersion")}
        wanted, now = _without_secrets(wanted), _without_secrets(now)
        found += [
            Drift(object=label, path=path, ours=ours, live=theirs, owner=_owner(now, path))
            for path, ours, theirs in _differences("", by_name(wanted), by_name(now))
        ]
    return tuple(found)


def _without_secrets(one: Mapping[str, Any]) -> dict[str, Any]:
    """What people are shown of a Secret is whether it is another one."""
    if one.get("kind") != "Secret":
        return dict(one)
    return dict(one) | {"data": _digests(one.get("data") or {})}


def _digests(data: Mapping[str, str]) -> dict[str, str]:
    return {name: f"sha256:{digest(value)[:12]}" for name, value in data.items()}


def _differences(path: str, wanted: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(wanted, Mapping):
        inside = now if isinstance(now, Mapping) else {}
        for name, value in wanted.items():
            yield from _differences(f"{path}.{name}" if path else str(name), value, inside.get(name))
    elif not _same(wanted, now):
        yield path, wanted, now


def _same(wanted: Any, now: Any) -> bool:
    """An empty list or text that the server left out is the same as none."""
    if isinstance(wanted, list) and isinstance(now, list) and len(wanted) == len(now):
        return all(not list(_differences("", one, other)) for one, other in zip(wanted, now, strict=True))
    return bool(wanted == now) or (now is None and wanted in ("", [], {}, False))


def _owner(now: Mapping[str, Any], path: str) -> str:
    """The last other manager whose fields lie on the way to this one."""
    first = path.split(".")[:2]
    writers = [
        one
        for one in now["metadata"].get("managedFields") or ()
        if one.get("manager") != names.MANAGER and _covers(one.get("fieldsV1") or {}, first)
    ]
    writers.sort(key=lambda one: str(one.get("time", "")))
    return str(writers[-1].get("manager", "")) if writers else ""


def _covers(fields: Mapping[str, Any], parts: list[str]) -> bool:
    for part in parts:
        if f"f:{part}" not in fields:
            return False
        fields = fields[f"f:{part}"] or {}
    return True
