"""Writing a wish into a cluster: object by object, each under the condition that it is as it was read.

A size is not a revision. Where an autoscaler writes it, it is never applied; where Slipway's own loop does, it goes
through the `scale` subresource alone.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from controlplane.core.errors import Conflict
from deployments.domain.workload import DesiredDeployment
from deployments.targets.kubernetes import live as cluster
from deployments.targets.kubernetes import names, preflight, records
from deployments.targets.kubernetes.api import Api, Object
from deployments.targets.kubernetes.errors import FieldConflict, Moved
from deployments.targets.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, EVENT, POD, of
from deployments.targets.kubernetes.live import Live
from deployments.targets.kubernetes.render import WISH, Manifest, record_name
from deployments.targets.kubernetes.render.network import main_of
from deployments.targets.port import StaleGeneration, StaleLive

ALWAYS_OURS = frozenset({".spec.replicas"})
"""Where a size is applied at all there is no autoscaler, and what an earlier one wrote is not another's wish."""
TRIES = 6
"""Status is written to the same objects by controllers, so what was read is soon old; six looks in a row are not."""


@dataclass(frozen=True)
class Writer:
    """Into one namespace."""

    api: Api
    namespace: str

    def apply(
        self,
        desired: DesiredDeployment,
        manifests: Sequence[Manifest],
        *,
        expected_live_digest: str | None,
        take_over: Callable[[str], None] | None,
    ) -> None:
        """As `Target.apply`, given what the wish renders to."""
        for attempt in range(TRIES):
            expected = expected_live_digest if attempt == 0 else None
            try:
                return self._apply(desired, manifests, expected, take_over)
            except Moved:
                if attempt == TRIES - 1:
                    raise
        return None

    def scale(self, name: str, replicas: int, *, version: str = "") -> None:
        change: Object = {"spec": {"replicas": replicas}}
        change |= {"metadata": {"resourceVersion": version}} if version else {}
        self.api.merge(DEPLOYMENT, name, self.namespace, change, part="scale")

    def _apply(
        self,
        desired: DesiredDeployment,
        manifests: Sequence[Manifest],
        expected_live_digest: str | None,
        take_over: Callable[[str], None] | None,
    ) -> None:
        now = cluster.read(self.api, self.namespace, desired.key)
        self.refuse_names_of_others(manifests, desired.key, now)
        missing = [one for one in manifests if cluster.ref(one) not in now.objects]
        applied = records.wish_of(now.get(CONFIG_MAP, record_name(desired)))
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
            self.scale(manifest["metadata"]["name"], main.replicas)

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
            preflight.refuse_two_autoscalers(self.api, self.namespace, desired)
            try:
                self.scale(name, main.replicas, version=version)
            except Moved:
                refused += 1
                if refused == TRIES:
                    raise

    def _version_to_resize(self, desired: DesiredDeployment, replicas: int) -> str | None:
        """None if it has that size, else the version for which another may be written. A size has no generation of its
        own: it is written for the one that stands there, if nothing moved since. Raises StaleGeneration."""
        known = self.api.get(DEPLOYMENT, names.name_of(desired), self.namespace)
        if cluster.generation_of(known) > desired.generation:
            raise stale(desired.generation, cluster.generation_of(known))
        same = int(known["spec"].get("replicas", 1)) == replicas
        return None if same else str(known["metadata"]["resourceVersion"])

    def _prune(self, manifests: Sequence[Manifest], now: Live) -> None:
        """What is not wished for any more. Configurations stay while pods may still mount them."""
        wanted = {cluster.ref(one) for one in manifests}
        revisions = {str(one["metadata"]["labels"].get(names.REVISION)) for one in manifests}
        for pod in self.api.list(POD, self.namespace, labels=_selector(manifests)).items:
            revisions.add(str(pod["metadata"]["labels"].get(names.REVISION)))
        for (kind, name), one in now.objects.items():
            mounted = kind == CONFIG_MAP.kind and one["metadata"]["labels"].get(names.REVISION) in revisions
            if (kind, name) not in wanted and not mounted:
                self.api.delete(of({"kind": kind}), name, self.namespace)

    def _refuse_stale(self, desired: DesiredDeployment, now: Live) -> None:
        applied = records.wish_of(now.get(CONFIG_MAP, record_name(desired)))
        newest = now.generation if now.objects else records.fence_of(self.api, self.namespace, desired.key)
        # One of this generation that was broken off, which nothing records yet, is taken up again.
        taken = applied.generation if applied is not None else newest if not now.objects else -1
        if desired.generation < newest or desired.generation <= taken:
            raise stale(desired.generation, newest)

    def refuse_names_of_others(self, manifests: Sequence[Manifest], key: str, now: Live) -> None:
        """An object of that name which is not this deployment's: somebody else's, or another deployment's."""
        for manifest in manifests:
            if cluster.ref(manifest) in now.objects:
                continue
            other = self.api.find(of(manifest), manifest["metadata"]["name"], self.namespace)
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
                f"The path {path} needs that name in the namespace {self.namespace}. Choose another name for "
                "the deployment, or another namespace.",
            )

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
                "apiVersion": "apps/v1", "kind": DEPLOYMENT.kind, "name": name, "namespace": self.namespace,
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
            self.api.create(EVENT, document, self.namespace)


def stale(generation: int, newest: int) -> StaleGeneration:
    """The error of a writer of `generation` where `newest` was applied."""
    return StaleGeneration(
        "stale_generation",
        "A newer change of this deployment is already in place.",
        f"This one has generation {generation}, the newest is {newest}. Read the deployment again.",
        extra={"live_generation": newest},
    )


def _selector(manifests: Sequence[Manifest]) -> str:
    return names.selector(manifests[0]["metadata"]["labels"][names.KEY])


def _path_of(manifests: Sequence[Manifest]) -> str:
    return str(json.loads(manifests[-1]["data"][WISH])["path"])
