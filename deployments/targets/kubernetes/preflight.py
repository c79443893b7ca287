"""What would stand in the way of a rollout in this cluster, asked before anything is written.

Each question is asked by itself: one that the cluster does not let us ask is said to be unknown, and the others are
still answered.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from controlplane.core.errors import Conflict, NotFound, Unprocessable
from deployments import stacks
from deployments.domain.plan import Finding, Severity
from deployments.domain.workload import DesiredDeployment, Workload
from deployments.targets.kubernetes import capacity, complaints, kinds, metrics_install, names, permissions
from deployments.targets.kubernetes.api import Api, Object
from deployments.targets.kubernetes.errors import FieldConflict, Refused
from deployments.targets.kubernetes.render import Manifest, render
from deployments.targets.kubernetes.render.place import Place
from deployments.targets.port import Unreachable


def findings(
    api: Api, place: Place, desired: DesiredDeployment, *, live: DesiredDeployment | None
) -> tuple[Finding, ...]:
    """Never raises Unreachable: that is a finding, and then the only one."""
    try:
        desired = names.with_slots(desired)
        return tuple(_all(api, place, desired, live))
    except Unreachable as error:
        return (
            Finding.error(
                error.code, error.title, error.detail, "Wait until the cluster answers, or mend its access."
            ),
        )


def _all(
    api: Api, place: Place, desired: DesiredDeployment, live: DesiredDeployment | None
) -> Iterator[Finding]:
    if gone := list(_asked(lambda: _namespace(api, place))):
        yield from gone
        if any(one.severity is Severity.ERROR for one in gone):
            return
    yield from complaints.rights(permissions.missing(api, place.namespace))
    yield from complaints.address(place)
    workloads = [one for one in desired.workloads if one.cluster is not None]
    for workload in workloads:
        yield from _of_spec(workload)
        yield from _asked(lambda workload=workload: _named_objects(api, place, workload))  # type: ignore[misc]
        yield from _asked(lambda workload=workload: capacity.findings(api, desired, workload, live))  # type: ignore[misc]
    if workloads:
        yield from _asked(lambda: capacity.quota(api, place.namespace, desired, live))
        yield from _asked(lambda: _autoscaling(api, place, desired, workloads[0]))
    yield from _would_be_taken(api, render(desired, place))


def _asked(question: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What the cluster does not let us ask is said to be unknown."""
    try:
        yield from list(question())
    except (Refused, NotFound) as error:
        yield complaints.not_known(error)


def _namespace(api: Api, place: Place) -> Iterator[Finding]:
    found = api.find(kinds.NAMESPACE, place.namespace, None)
    if found is None:
        yield complaints.namespace_missing(place.namespace)
    elif (found.get("status") or {}).get("phase") == "Terminating":
        yield Finding.error(
            "namespace_terminating",
            f"The namespace {place.namespace} is being deleted.",
            "Nothing new can be made in it.",
            "Choose another namespace on the target's page.",
        )


def _of_spec(workload: Workload) -> Iterator[Finding]:
    assert workload.cluster is not None
    settings = workload.cluster.settings
    resources = settings.resources
    if resources.memory_may_grow:
        yield Finding.warning(
            "memory_overcommitted",
            "The memory request is below its limit.",
            f"It asks for {resources.memory} and may use {resources.memory_limit}: a full node ends such pods first.",
            "Set both to the same value where that must not happen.",
        )
    image = settings.image or stacks.load(workload.stack).container.image
    if "@sha256:" not in image:
        yield Finding.warning(
            "image_by_tag",
            "The image is named by a tag.",
            f"{image} can be another image tomorrow, on some nodes.",
            "Name it by digest (@sha256:...).",
        )


def _named_objects(api: Api, place: Place, workload: Workload) -> Iterator[Finding]:
    assert workload.cluster is not None
    settings = workload.cluster.settings
    for kind, name, namespace in (
        (kinds.SECRET, settings.image_pull_secret, place.namespace),
        (kinds.PRIORITY_CLASS, settings.priority_class, None),
    ):
        if name and api.find(kind, name, namespace) is None:
            yield Finding.error(
                f"{kind.kind.lower()}_missing",
                f"There is no {kind.kind} {name}.",
                f"The revision names it{f', and the namespace {namespace} has none' if namespace else ''}.",
                "Make it, or take it out of the revision.",
            )


def _autoscaling(api: Api, place: Place, desired: DesiredDeployment, workload: Workload) -> Iterator[Finding]:
    assert workload.cluster is not None
    for other in other_autoscalers(api, place.namespace, desired):
        yield Finding.error(
            "two_autoscalers",
            "Another autoscaler scales the same Deployment.",
            f"{other} has it as its target: both would write its size.",
            f"Delete it: kubectl delete {other.replace(' ', '/')} -n {place.namespace}",
        )
    if workload.cluster.settings.autoscaler == "hpa":
        yield from _metrics_provider(api)


def other_autoscalers(api: Api, namespace: str, desired: DesiredDeployment) -> Iterator[str]:
    """Kind and name of what scales the deployment's main Deployment and is not Slipway's. KEDA's own HPA, which it
    makes from a ScaledObject of Slipway's, belongs to that."""
    name = names.name_of(desired)
    found = [*api.list(kinds.HPA, namespace).items]
    with suppress(NotFound):  # no KEDA here
        found += api.list(kinds.SCALED_OBJECT, namespace).items
    ours = {one["metadata"].get("uid") for one in found if _is_of(one, desired)}
    for one in found:
        aims = one["spec"].get("scaleTargetRef") or {}
        owners = {owner.get("uid") for owner in one["metadata"].get("ownerReferences") or ()}
        same = aims.get("name") == name and aims.get("kind", "Deployment") == "Deployment"
        if same and not _is_of(one, desired) and not owners & ours:
            yield f"{one['kind']} {one['metadata']['name']}"


def _is_of(one: Object, desired: DesiredDeployment) -> bool:
    return bool((one["metadata"].get("labels") or {}).get(names.KEY) == desired.key)


def refuse_two_autoscalers(api: Api, namespace: str, desired: DesiredDeployment) -> None:
    """Raises Conflict."""
    for other in other_autoscalers(api, namespace, desired):
        raise Conflict(
            "two_autoscalers",
            "Another autoscaler scales the same Deployment.",
            f"{other} has it as its target, so Slipway's own loop writes no size. Delete one of the two.",
        )


def metrics_owner(api: Api) -> str:
    """Who answers for external metrics, as words; empty where that cannot be looked at."""
    try:
        found = metrics_install.provider(api)
    except Refused:
        return ""
    if found is None:
        return f"nobody (there is no APIService {kinds.EXTERNAL_METRICS})"
    return (
        f"{found.service}, which is Slipway's" if found.ours else f"{found.service}, which is not Slipway's"
    )


def _metrics_provider(api: Api) -> Iterator[Finding]:
    """Only one can own the API in a cluster."""
    found = metrics_install.provider(api)
    if found is None:
        yield Finding.warning(
            "no_metrics_provider",
            "Nobody answers the autoscaler's questions yet.",
            f"The APIService {kinds.EXTERNAL_METRICS} does not exist: the HPA would hold its size.",
            "Install Slipway's metrics API from the target's page.",
        )
    elif not found.ours:
        yield Finding.error(
            "foreign_metrics_provider",
            "Another product answers the autoscaler's questions.",
            f"The APIService {kinds.EXTERNAL_METRICS} is served by {found.service}, and a cluster has only one.",
            "Choose KEDA (it asks Slipway itself), or Slipway's own loop, as this revision's autoscaler.",
        )
    elif found.trouble:
        yield Finding.warning(
            "metrics_provider_down",
            "Slipway's metrics API does not answer the cluster.",
            found.trouble,
            "Look at the process metrics-api and its Service; until then the HPA holds its size.",
        )


def _would_be_taken(api: Api, manifests: Sequence[Manifest]) -> Iterator[Finding]:
    """A dry run without force: who owns fields that we would change, and what the cluster calls invalid."""
    for manifest in manifests:
        kind = kinds.of(manifest)
        try:
            api.apply(kind, manifest, dry_run=True)
        except FieldConflict as error:
            yield Finding.warning(
                "field_conflict", error.title, error.detail, "Applying takes the fields over."
            )
        except (Unprocessable, Refused, NotFound) as error:
            yield Finding.error(error.code, error.title, error.detail, _to_do(manifest, error))
        except Conflict:
            continue


def _to_do(manifest: Manifest, error: Exception) -> str:
    if isinstance(error, NotFound):
        return f"The cluster does not know {manifest['kind']} ({manifest['apiVersion']}): install it, or go without."
    return "Change the revision so that the cluster takes it."
