"""A cluster as the rest of the product sees it: the port, spoken by server-side apply.

Each object carries the generation it was applied for, and is applied under the condition that it has not moved since
it was read: of two writers that believe they are alone, the older one is refused. The wish itself is kept as a
ConfigMap that is written last, so what it says has been applied. Refused: our own kind of object, and state beside
the cluster's: what a cluster runs is asked of it.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from controlplane.core.errors import Conflict, InvalidInput, NotFound, SlipwayError, Unprocessable
from deployments.domain.drift import Drift
from deployments.domain.plan import Finding, Plan, diff
from deployments.domain.workload import (
    DesiredDeployment,
    ReplicaState,
    ReplicaStatus,
    TargetEvent,
    TargetStatus,
)
from deployments.targets.kubernetes import live as cluster
from deployments.targets.kubernetes import names, preflight
from deployments.targets.kubernetes.api import Api, Object
from deployments.targets.kubernetes.errors import FieldConflict, Moved
from deployments.targets.kubernetes.events import events_of
from deployments.targets.kubernetes.following import Followed
from deployments.targets.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, EVENT, HPA, POD, Kind, of
from deployments.targets.kubernetes.live import Live
from deployments.targets.kubernetes.render import WISH, Manifest, record_name, render
from deployments.targets.kubernetes.render.network import main_of
from deployments.targets.kubernetes.render.place import Place
from deployments.targets.kubernetes.seen import status_of
from deployments.targets.kubernetes.way import way
from deployments.targets.port import StaleGeneration, StaleLive

MINE = f"{names.MANAGED_BY}={names.MANAGER}"
SEEN = (CONFIG_MAP, DEPLOYMENT, POD, HPA)
"""What a status is made of."""
ALWAYS_OURS = frozenset({".spec.replicas"})
"""Where a size is applied at all there is no autoscaler, and what an earlier one wrote is not another's wish."""
TRIES = 4
"""Status is written to the same objects by controllers, so what was read is soon old; four looks in a row are not."""
MOST_TAILS, TAIL_LINES = 3, 50
OWNER_S = 60.0
FENCES = "slipway-fences"
"""One ConfigMap of the namespace: the last generation of each deployment that was deleted."""


class KubernetesTarget:
    """See `deployments.targets.port.Target`. `pull_token` gives what a deployment's pods fetch variants with."""

    rolls = True

    def __init__(
        self, api: Api, place: Place, *, pull_token: Callable[[str], str], proxied: bool = False
    ) -> None:
        """`proxied`: pods are measured through the API server, because Slipway does not reach their addresses."""
        self.api = api
        self.place = place
        self.way = way(api, place.namespace) if proxied else None
        self._pull_token = pull_token
        self._followed: Followed | None = None
        self._owner = ("", -OWNER_S)

    def preflight(self, desired: DesiredDeployment, *, live: DesiredDeployment | None) -> tuple[Finding, ...]:
        return preflight.findings(self.api, self.place, desired, live=live)

    def plan(self, desired: DesiredDeployment) -> Plan:
        """Asks the cluster what each object would become (dry run), so its own defaults and webhooks are in it."""
        now = cluster.read(self.api, self.place.namespace, desired.key)
        manifests = self._render(desired)
        self._refuse_names_of_others(manifests, desired.key, now)
        after = {
            cluster.ref(one): self.api.apply(of(one), one, dry_run=True, force=True) for one in manifests
        }
        before = {ref: one for ref, one in now.objects.items() if ref in after or _is_pruned(ref, one)}
        return Plan(
            diff=diff(_by_ref(before), _by_ref(after)),
            live_generation=now.generation if now.objects else None,
            live_digest=now.digest,
            manifests=tuple(_shown(one) for one in manifests),
        )

    def apply(
        self,
        desired: DesiredDeployment,
        *,
        expected_live_digest: str | None = None,
        take_over: Callable[[str], None] | None = None,
    ) -> None:
        for attempt in range(TRIES):
            try:
                return self._apply(desired, expected_live_digest if attempt == 0 else None, take_over)
            except Moved:
                if attempt == TRIES - 1:
                    raise
        return None

    def observe(self, key: str) -> TargetStatus:
        labels = names.selector(key)
        records = self.api.list(
            CONFIG_MAP, self.place.namespace, labels=f"{labels},{names.RECORD}=wish"
        ).items
        deployments = self.api.list(DEPLOYMENT, self.place.namespace, labels=labels).items
        pods = self.api.list(POD, self.place.namespace, labels=labels).items
        if not records and not deployments and not pods:
            raise NotFound("no_such_deployment", f"There is no deployment {key} in this cluster.")
        hpas = self.api.list(HPA, self.place.namespace, labels=labels).items
        seen = self._with_owner(
            status_of(key, record=_first(records), deployments=deployments, pods=pods, hpa=_first(hpas))
        )
        return replace(seen, replicas=tuple(self._with_tails(key, seen.replicas)))

    def observe_all(self) -> tuple[TargetStatus, ...]:
        """Four calls, however many deployments there are; none while it follows the namespace."""
        found: dict[str, dict[str, list[Object]]] = {}
        for kind in SEEN:
            for item in self._mine(kind):
                labels = item["metadata"].get("labels") or {}
                if kind is not CONFIG_MAP or names.RECORD in labels:
                    found.setdefault(labels.get(names.KEY, ""), {}).setdefault(kind.kind, []).append(item)
        return tuple(
            self._with_owner(
                status_of(
                    key,
                    record=_first(kinds.get(CONFIG_MAP.kind, ())),
                    deployments=kinds.get(DEPLOYMENT.kind, ()),
                    pods=kinds.get(POD.kind, ()),
                    hpa=_first(kinds.get(HPA.kind, ())),
                )
            )
            for key, kinds in sorted(found.items())
            if key
        )

    def follow(self, changed: Callable[[str], None]) -> None:
        """From now on `observe_all` answers from what watches keep up to date; `changed` gets the keys of deployments
        whose objects moved, in another thread. Following twice is the same."""
        if self._followed is None:
            self._followed = Followed(
                api=self.api,
                namespace=self.place.namespace,
                labels=MINE,
                kinds=SEEN,
                changed=lambda one: changed((one["metadata"].get("labels") or {}).get(names.KEY, "")),
            ).start()

    def desired(self, key: str) -> DesiredDeployment | None:
        """As it was applied, with the sizes that whoever scales has given since."""
        labels = names.selector(key)
        records = self.api.list(
            CONFIG_MAP, self.place.namespace, labels=f"{labels},{names.RECORD}=wish"
        ).items
        wish = _wish(_first(records))
        if wish is None:
            return None
        return _with_sizes(wish, self.api.list(DEPLOYMENT, self.place.namespace, labels=labels).items)

    def scale(self, key: str, *, revision: int, replicas: int, generation: int) -> None:
        wish = self.desired(key)
        if wish is None or wish.workload(revision) is None:
            raise NotFound("no_such_revision", f"Deployment {key} has no live revision {revision}.")
        workloads = tuple(
            replace(one, replicas=replicas) if one.revision == revision else one for one in wish.workloads
        )
        self.apply(replace(wish, workloads=workloads, generation=generation))
        for one in self.api.list(DEPLOYMENT, self.place.namespace, labels=names.selector(key)).items:
            of_revision = one["metadata"]["labels"].get(names.REVISION) == str(revision)
            if of_revision and one["spec"].get("replicas") != replicas:
                self._scale(one["metadata"]["name"], replicas)

    def logs(self, key: str, *, replica: str, tail: int = 200) -> tuple[str, ...]:
        pod = self.api.find(POD, replica, self.place.namespace)
        if pod is None or (pod["metadata"].get("labels") or {}).get(names.KEY) != key:
            raise NotFound("no_such_replica", f"Deployment {key} has no replica {replica}.")
        for container, previous in (("server", False), ("server", True), ("fetch", False)):
            with suppress(NotFound, Unprocessable):
                text = self.api.log(
                    replica, self.place.namespace, container=container, tail=tail, previous=previous
                )
                if text.strip():
                    return tuple(text.splitlines()[-tail:])
        return ()

    def events(self, key: str | None = None, *, after: int = 0, wait_s: float = 0) -> tuple[TargetEvent, ...]:
        """The cluster's own events about objects of the deployment; it keeps them for an hour."""
        labels = names.selector(key) if key else MINE
        about: dict[tuple[str, str], str] = {}
        for kind in (POD, DEPLOYMENT, HPA):
            for item in self.api.list(kind, self.place.namespace, labels=labels).items:
                about[kind.kind, item["metadata"]["name"]] = item["metadata"]["labels"][names.KEY]
        return events_of(self.api.list(EVENT, self.place.namespace).items, about=about, key=key, after=after)

    def delete(self, key: str) -> None:
        now = cluster.read(self.api, self.place.namespace, key)
        if not now.objects:
            return
        self._fence(key, now.generation)
        for kind, name in now.objects:
            self.api.delete(of({"kind": kind}), name, self.place.namespace)

    def drift(self, key: str) -> tuple[Drift, ...]:
        """What others changed or deleted of what was applied. Empty where nothing was."""
        now = cluster.read(self.api, self.place.namespace, key)
        wish = next((found for one in now.of(CONFIG_MAP) if (found := _wish(one)) is not None), None)
        return cluster.drift(self._render(wish), now) if wish is not None else ()

    def put_back(self, key: str) -> None:
        """Takes over every field that somebody else changed, and applies what was wished for once more."""
        wish = self.desired(key)
        if wish is None:
            raise NotFound("no_such_deployment", f"There is no deployment {key} in this cluster.")
        for manifest in self._render(wish):
            if not manifest.get("immutable"):
                self.api.apply(of(manifest), manifest, force=True)

    # How it does it

    def _mine(self, kind: Kind) -> list[Object]:
        if self._followed is not None:
            return self._followed.items(kind)
        return self.api.list(kind, self.place.namespace, labels=MINE).items

    def _render(self, desired: DesiredDeployment) -> tuple[Manifest, ...]:
        return render(desired, self.place, pull_token=self._pull_token(desired.key))

    def _apply(
        self,
        desired: DesiredDeployment,
        expected_live_digest: str | None,
        take_over: Callable[[str], None] | None,
    ) -> None:
        now = cluster.read(self.api, self.place.namespace, desired.key)
        manifests = self._render(desired)
        self._refuse_names_of_others(manifests, desired.key, now)
        missing = [one for one in manifests if cluster.ref(one) not in now.objects]
        applied = _wish(now.get(CONFIG_MAP, record_name(desired)))
        if applied is not None and applied.without_sizes() == desired.without_sizes():
            for manifest in missing:  # somebody deleted it: what was wished for still is
                self._write(manifest, now)
                self._first_size(desired, manifest)
            self._resize(desired)
            return
        self._refuse_stale(desired, now)
        if expected_live_digest not in (None, now.digest):
            title = "What is live has changed since this plan was made."
            raise StaleLive("live_moved", title, "Plan again, and apply that plan.")
        for manifest in manifests:
            try:
                self._write(manifest, now)
            except FieldConflict as error:
                if error.owners.keys() - ALWAYS_OURS:
                    if take_over is None:
                        raise
                    take_over(f"Took over from others: {error.detail}")
                self._write(manifest, now, force=True)
            if manifest in missing:
                self._first_size(desired, manifest)
        self._prune(manifests, now)
        self._resize(desired)
        self._tell(desired)

    def _with_owner(self, seen: TargetStatus) -> TargetStatus:
        """Whose metrics they are that an autoscaler cannot read; asked once a minute at most, and only then."""
        blind = any(
            one["type"] == "ScalingActive" and one["status"] == "False"
            for one in seen.autoscaler.get("conditions", ())
        )
        if not blind:
            return seen
        if time.monotonic() - self._owner[1] > OWNER_S:
            self._owner = (preflight.metrics_owner(self.api), time.monotonic())
        return replace(seen, autoscaler=seen.autoscaler | {"provider": self._owner[0]})

    def _with_tails(self, key: str, replicas: Sequence[ReplicaStatus]) -> Iterator[ReplicaStatus]:
        """The last lines of the first few that failed; a cluster that cannot give them now has its reason still."""
        failed = [one.name for one in replicas if one.state is ReplicaState.FAILED][:MOST_TAILS]
        for one in replicas:
            tail: tuple[str, ...] = ()
            if one.name in failed:
                with suppress(SlipwayError):
                    tail = self.logs(key, replica=one.name, tail=TAIL_LINES)
            yield replace(one, log_tail=tail)

    def _write(self, manifest: Manifest, now: Live, *, force: bool = False) -> None:
        """Under the condition that it is as it was read. An immutable ConfigMap that is there is the same one."""
        known = now.objects.get(cluster.ref(manifest))
        if known is not None and manifest.get("immutable"):
            return
        if manifest["kind"] == DEPLOYMENT.kind and known is not None:
            self._hand_over_size(manifest, known)
        if known is not None:
            version = {"resourceVersion": known["metadata"]["resourceVersion"]}
            manifest = manifest | {"metadata": manifest["metadata"] | version}
        self.api.apply(of(manifest), manifest, force=force)

    def _first_size(self, desired: DesiredDeployment, manifest: Manifest) -> None:
        """A new Deployment has one replica; whoever scales it later begins at the size that was wished for."""
        if manifest["kind"] == DEPLOYMENT.kind and "replicas" not in manifest["spec"]:
            main = next(one for one in names.with_slots(desired).workloads if not one.candidate)
            self._scale(manifest["metadata"]["name"], main.replicas)

    def _hand_over_size(self, manifest: Manifest, known: Object) -> None:
        """When an autoscaler takes over: a field that its last owner leaves out is gone, and that would be one replica.
        So somebody else owns it first, as Kubernetes' documentation of server-side apply has it."""
        if "replicas" in manifest["spec"] or cluster.is_scaled(known):
            return
        kept = {name: manifest["metadata"][name] for name in ("name", "namespace")}
        size = {"replicas": known["spec"].get("replicas", 1)}
        document = {
            "apiVersion": manifest["apiVersion"],
            "kind": manifest["kind"],
            "metadata": kept,
            "spec": size,
        }
        self.api.apply(DEPLOYMENT, document, force=True, manager=f"{names.MANAGER}-handover")

    def _resize(self, desired: DesiredDeployment) -> None:
        """What Slipway's own loop decided. Raises Conflict where another autoscaler has come to the Deployment."""
        main = main_of(names.with_slots(desired))
        if main is None or main.scaler != "slipway":
            return
        name, refused = names.name_of(desired), 0
        while (version := self._version_to_resize(desired, main.replicas)) is not None:
            preflight.refuse_two_autoscalers(self.api, self.place.namespace, desired)
            try:
                self._scale(name, main.replicas, version=version)
            except Moved:
                refused += 1
                if refused == TRIES:
                    raise

    def _version_to_resize(self, desired: DesiredDeployment, replicas: int) -> str | None:
        """None if it has that size, else the version for which another may be written. A size has no generation of its
        own: it is written for the one that stands there, if nothing moved since. Raises StaleGeneration."""
        known = self.api.get(DEPLOYMENT, names.name_of(desired), self.place.namespace)
        if cluster.generation_of(known) > desired.generation:
            raise _stale(desired.generation, cluster.generation_of(known))
        same = int(known["spec"].get("replicas", 1)) == replicas
        return None if same else str(known["metadata"]["resourceVersion"])

    def _scale(self, name: str, replicas: int, *, version: str = "") -> None:
        change: Object = {"spec": {"replicas": replicas}}
        change |= {"metadata": {"resourceVersion": version}} if version else {}
        self.api.merge(DEPLOYMENT, name, self.place.namespace, change, part="scale")

    def _prune(self, manifests: Sequence[Manifest], now: Live) -> None:
        """What is not wished for any more. Configurations stay while pods may still mount them."""
        wanted = {cluster.ref(one) for one in manifests}
        revisions = {str(one["metadata"]["labels"].get(names.REVISION)) for one in manifests}
        for pod in self.api.list(POD, self.place.namespace, labels=_selector(manifests)).items:
            revisions.add(str(pod["metadata"]["labels"].get(names.REVISION)))
        for (kind, name), one in now.objects.items():
            mounted = kind == CONFIG_MAP.kind and one["metadata"]["labels"].get(names.REVISION) in revisions
            if (kind, name) not in wanted and not mounted:
                self.api.delete(of({"kind": kind}), name, self.place.namespace)

    def _refuse_stale(self, desired: DesiredDeployment, now: Live) -> None:
        applied = _wish(now.get(CONFIG_MAP, record_name(desired)))
        newest = now.generation if now.objects else self._fence_of(desired.key)
        # One of this generation that was broken off, which nothing records yet, is taken up again.
        taken = applied.generation if applied is not None else newest if not now.objects else -1
        if desired.generation < newest or desired.generation <= taken:
            raise _stale(desired.generation, newest)

    def _refuse_names_of_others(self, manifests: Sequence[Manifest], key: str, now: Live) -> None:
        """An object of that name which is not this deployment's: somebody else's, or another deployment's."""
        for manifest in manifests:
            if cluster.ref(manifest) in now.objects:
                continue
            other = self.api.find(of(manifest), manifest["metadata"]["name"], self.place.namespace)
            if other is None:
                continue
            owner = (other["metadata"].get("labels") or {}).get(names.KEY)
            if owner == key:
                raise Moved(
                    "object_moved", "An object of this deployment appeared meanwhile.", "Read it again."
                )
            path = _path_of(manifests)
            whose = f"deployment {owner}" if owner else "something that Slipway did not make"
            raise Conflict(
                "name_taken",
                f"{manifest['kind']} {manifest['metadata']['name']} belongs to {whose}.",
                f"The path {path} needs that name in the namespace {self.place.namespace}. Choose another name for "
                "the deployment, or another namespace.",
            )

    def _fence(self, key: str, generation: int) -> None:
        """Outlives the deployment: a late wish must not bring it back."""
        change = {"data": {key: str(generation)}}
        try:
            self.api.merge(CONFIG_MAP, FENCES, self.place.namespace, change)
        except NotFound:
            labels = {names.MANAGED_BY: names.MANAGER}
            document = {"metadata": {"name": FENCES, "labels": labels}} | change
            try:
                self.api.create(CONFIG_MAP, document, self.place.namespace)
            except Moved:
                self.api.merge(CONFIG_MAP, FENCES, self.place.namespace, change)

    def _fence_of(self, key: str) -> int:
        fences = self.api.find(CONFIG_MAP, FENCES, self.place.namespace)
        return int(((fences or {}).get("data") or {}).get(key, -1))

    def _tell(self, desired: DesiredDeployment) -> None:
        """An event beside the cluster's own, for whoever looks with kubectl."""
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        sizes = (
            ", ".join(f"revision {one.revision} x {one.replicas}" for one in desired.workloads) or "nothing"
        )
        name = names.name_of(desired)
        document = {
            "metadata": {"generateName": f"{name}.", "labels": names.labels(desired)},
            "involvedObject": {
                "apiVersion": "apps/v1", "kind": DEPLOYMENT.kind, "name": name, "namespace": self.place.namespace,
            },
            "reason": "SlipwayApplied",
            "message": f"Generation {desired.generation}: {sizes}",
            "type": "Normal",
            "source": {"component": names.MANAGER},
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }  # fmt: skip
        with suppress(Conflict):  # no right to write events is no reason to fail
            self.api.create(EVENT, document, self.place.namespace)


def _stale(generation: int, newest: int) -> StaleGeneration:
    return StaleGeneration(
        "stale_generation",
        "A newer change of this deployment is already in place.",
        f"This one has generation {generation}, the newest is {newest}. Read the deployment again.",
        extra={"live_generation": newest},
    )


def _first(items: Sequence[Object]) -> Object | None:
    return items[0] if items else None


def _wish(record: Mapping[str, Any] | None) -> DesiredDeployment | None:
    """None also for one that cannot be read: a newer Slipway wrote it, or somebody edited it."""
    try:
        return DesiredDeployment.from_json(json.loads((record or {}).get("data", {})[WISH]))
    except (KeyError, ValueError, TypeError, InvalidInput):
        return None


def _with_sizes(wish: DesiredDeployment, deployments: Sequence[Object]) -> DesiredDeployment:
    sizes = {
        one["metadata"]["labels"].get(names.SLOT): int(one["spec"].get("replicas", 1)) for one in deployments
    }
    slots = [names.slot_of(one) for one in names.with_slots(wish).workloads]
    workloads = tuple(
        replace(one, replicas=sizes.get(slot, one.replicas))
        for one, slot in zip(wish.workloads, slots, strict=True)
    )
    return replace(wish, workloads=workloads)


def _by_ref(objects: Mapping[cluster.Ref, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{kind} {name}": cluster.cleaned(one) for (kind, name), one in objects.items()}


def _shown(manifest: Manifest) -> Manifest:
    """As the plan's YAML shows it: what is secret is not."""
    if manifest["kind"] != "Secret":
        return manifest
    return manifest | {"data": dict.fromkeys(manifest["data"], "…")}


def _is_pruned(ref: cluster.Ref, one: Mapping[str, Any]) -> bool:
    """An old revision's configuration goes by itself later, which is no news."""
    return ref[0] != CONFIG_MAP.kind


def _selector(manifests: Sequence[Manifest]) -> str:
    return names.selector(manifests[0]["metadata"]["labels"][names.KEY])


def _path_of(manifests: Sequence[Manifest]) -> str:
    return str(json.loads(manifests[-1]["data"][WISH])["path"])
