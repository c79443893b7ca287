"""A cluster as the rest of the product sees it: the port, spoken by server-side apply.

Each object carries the generation it was applied for, and is applied under the condition that it has not moved since
it was read: of two writers that believe they are alone, the older one is refused. The wish itself is kept as a
ConfigMap that is written last, so what it says has been applied. Refused: our own kind of object, and state beside
the cluster's: what a cluster runs is asked of it.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from controlplane.core.errors import NotFound, SlipwayError
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
from deployments.targets.kubernetes import names, preflight, records
from deployments.targets.kubernetes.api import Api, Object, last_lines
from deployments.targets.kubernetes.events import events_of
from deployments.targets.kubernetes.following import Followed
from deployments.targets.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, EVENT, HPA, POD, Kind, of
from deployments.targets.kubernetes.origins import Origins
from deployments.targets.kubernetes.render import Manifest, render
from deployments.targets.kubernetes.render.place import Place
from deployments.targets.kubernetes.seen import status_of
from deployments.targets.kubernetes.way import way
from deployments.targets.kubernetes.writing import Writer

MINE = f"{names.MANAGED_BY}={names.MANAGER}"
SEEN = (CONFIG_MAP, DEPLOYMENT, POD, HPA)
"""What a status is made of."""
MOST_TAILS, TAIL_LINES = 3, 50
CONTAINERS = (("server", False), ("server", True), ("fetch", False))
"""Whose last lines are shown, and whether those of the process before it."""
OWNER_S = 60.0


class KubernetesTarget:
    """See `deployments.targets.port.Target`. `pull_token` gives what a deployment's pods fetch variants with."""

    rolls = True

    def __init__(
        self, api: Api, place: Place, *, pull_token: Callable[[str], str], proxied: bool = False
    ) -> None:
        """`proxied`: pods are measured through the API server, because Slipway does not reach their addresses."""
        self.api = api
        self.place = place
        self.origins = Origins(api, place.namespace)
        self._writer = Writer(api, place.namespace)
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
        self._writer.refuse_names_of_others(manifests, desired.key, now)
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
        self._writer.apply(
            desired,
            self._render(desired),
            expected_live_digest=expected_live_digest,
            take_over=take_over,
        )

    def observe(self, key: str) -> TargetStatus:
        labels = names.selector(key)
        kept = self.api.list(CONFIG_MAP, self.place.namespace, labels=f"{labels},{names.RECORD}=wish").items
        deployments = self.api.list(DEPLOYMENT, self.place.namespace, labels=labels).items
        pods = self.api.list(POD, self.place.namespace, labels=labels).items
        if not kept and not deployments and not pods:
            raise NotFound("no_such_deployment", f"There is no deployment {key} in this cluster.")
        hpas = self.api.list(HPA, self.place.namespace, labels=labels).items
        seen = self._with_owner(
            status_of(key, record=_first(kept), deployments=deployments, pods=pods, hpa=_first(hpas))
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
        kept = self.api.list(CONFIG_MAP, self.place.namespace, labels=f"{labels},{names.RECORD}=wish").items
        wish = records.wish_of(_first(kept))
        if wish is None:
            return None
        return records.with_sizes(wish, self.api.list(DEPLOYMENT, self.place.namespace, labels=labels).items)

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
                self._writer.scale(one["metadata"]["name"], replicas)

    def logs(self, key: str, *, replica: str, tail: int = 200) -> tuple[str, ...]:
        pod = self.api.find(POD, replica, self.place.namespace)
        if pod is None or (pod["metadata"].get("labels") or {}).get(names.KEY) != key:
            raise NotFound("no_such_replica", f"Deployment {key} has no replica {replica}.")
        return last_lines(self.api, pod, CONTAINERS, tail=tail)

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
        records.fence(self.api, self.place.namespace, key, now.generation)
        for kind, name in now.objects:
            self.api.delete(of({"kind": kind}), name, self.place.namespace)

    def drift(self, key: str) -> tuple[Drift, ...]:
        """What others changed or deleted of what was applied. Empty where nothing was."""
        now = cluster.read(self.api, self.place.namespace, key)
        wish = next(
            (found for one in now.of(CONFIG_MAP) if (found := records.wish_of(one)) is not None), None
        )
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


def _first(items: Sequence[Object]) -> Object | None:
    return items[0] if items else None


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
