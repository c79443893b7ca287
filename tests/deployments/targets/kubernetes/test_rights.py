"""The table of rights is what Slipway does in a cluster: no call without a right, no needed right without a call."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from deployments.domain.cluster import ClusterSettings, Resources
from deployments.domain.workload import DesiredDeployment
from deployments.targets.kubernetes import checkup, kinds, metrics_install, rights
from deployments.targets.kubernetes.api import Api
from deployments.targets.kubernetes.kinds import Kind
from deployments.targets.kubernetes.rights import GRANTED_TO_ALL, RIGHTS
from deployments.targets.kubernetes.target import SEEN, KubernetesTarget
from deployments.targets.port import Unreachable
from tests.deployments.targets.kubernetes.room import WITHIN_S, Room, cluster_workload, scaled
from tests.deployments.targets.kubernetes.test_metrics_install import wanted

OPEN_TO_ALL = ("/version", "/apis")
"""Of system:public-info-viewer and system:discovery."""
VERBS = {"POST": {"create"}, "DELETE": {"delete"}, "PATCH": {"patch"}}


class Recorded(Api):
    """Keeps (method, path, query) of every call."""

    def __init__(self, like: Api) -> None:
        super().__init__(like.connection)
        self.made: list[tuple[str, str, Mapping[str, str]]] = []

    def _call(self, method: str, path: str, asked: Any = None, **how: Any) -> bytes:
        self.made.append((method, path, dict(asked or {})))
        return super()._call(method, path, asked, **how)

    @contextmanager
    def _stream(self, path: str, asked: Any, **how: Any) -> Iterator[Iterator[bytes]]:
        self.made.append(("GET", path, dict(asked)))
        with super()._stream(path, asked, **how) as lines:
            yield lines


def needed(method: str, path: str, asked: Mapping[str, str]) -> set[tuple[str, str, bool]]:
    """(verb, resource with its group, in all namespaces) as the cluster authorizes it; none for what all may."""
    if path in OPEN_TO_ALL:
        return set()
    parts = path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    everywhere = True
    if rest[0] == "namespaces" and len(rest) > 2:
        rest, everywhere = rest[2:], False
    resource = rest[0] + (f"/{rest[2]}" if len(rest) > 2 else "")
    if method == "GET":
        verbs = {"get"} if len(rest) > 1 else {"watch" if asked.get("watch") else "list"}
    else:
        # An object that server-side apply makes needs both.
        verbs = VERBS[method] | ({"create"} if method == "PATCH" and "fieldValidation" in asked else set())
    return {(verb, f"{group}/{resource}", everywhere) for verb in verbs}


def granted(table: tuple[rights.Right, ...]) -> set[tuple[str, str, bool]]:
    return {(verb, f"{one.kind.group}/{one.resource}", one.across) for one in table for verb in one.verbs}


def live_through(room: Room, api: Recorded, key: str) -> None:
    """The life of a deployment, with everything that the target looks at on the way."""
    target = KubernetesTarget(api, room.place, pull_token=lambda key: "t")
    first = scaled(cluster_workload(1, 2))
    desired = DesiredDeployment(key=key, path=f"/team/{key}", generation=1, workloads=(first,))
    for settings in (
        ClusterSettings(image_pull_secret="registry", priority_class="high", allow_from=("web",)),
        ClusterSettings(resources=Resources(gpus=1, gpu_resource="example.com/gpu")),
    ):
        asked = replace(desired, workloads=(scaled(cluster_workload(1, 2, settings=settings)),))
        assert "not_known" not in [one.code for one in target.preflight(asked, live=None)]
    plan = target.plan(desired)
    target.apply(desired, expected_live_digest=plan.live_digest)
    room.says(key, 1, ["loaded"])
    room.until(key, lambda status: status.ready(1) == 2)
    moved: list[str] = []
    target.follow(moved.append)
    assert target._followed is not None
    listed(target, key)
    watched(api)
    target._followed.stop()
    second = scaled(cluster_workload(2, 2, threads=2))
    target.apply(replace(desired, workloads=(second,), generation=2))
    room.until(key, lambda status: status.ready(2) == 2 == len(status.replicas))
    target.scale(key, revision=2, replicas=3, generation=3)
    room.until(key, lambda status: status.ready(2) == 3 == len(status.replicas))
    replica = target.observe(key).replicas[0].name
    with suppress(Unreachable):  # of the kubelet, which is only played on a real control plane
        target.logs(key, replica=replica)
    target.events(key)
    target.drift(key)
    target.desired(key)
    target.put_back(key)
    assert checkup.look(api, room.place).usable
    target.delete(key)
    room.until_gone(key)
    target.delete(key)


def watched(api: Recorded) -> None:
    """Waits until each kind is watched: what is listed is not yet."""
    end = time.monotonic() + WITHIN_S
    while len({path for _, path, asked in api.made if asked.get("watch")}) < len(SEEN):
        assert time.monotonic() < end
        time.sleep(0.05)


def listed(target: KubernetesTarget, key: str) -> None:
    """Waits until what it follows has been listed once."""
    end = time.monotonic() + WITHIN_S
    while True:
        try:
            assert [one.key for one in target.observe_all()] == [key]
            return
        except Unreachable:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_every_call_of_a_life_is_in_the_table_and_every_needed_right_is_used(room: Room, key: str) -> None:
    with_gpu_nodes(room)
    api = Recorded(room.api)
    live_through(room, api, key)
    used = {one for call in api.made for one in needed(*call)}
    free = {("create", f"{kind.group}/{kind.plural}", True) for kind in GRANTED_TO_ALL}
    assert used - granted(RIGHTS) - free == set()
    required = granted(tuple(one for one in RIGHTS if not one.optional))
    assert required - used == set()


def test_installing_the_metrics_api_calls_only_what_its_own_rows_say(room: Room) -> None:
    api = Recorded(room.api)
    install = wanted(room.namespace)
    metrics_install.install(api, install, etag=metrics_install.plan(api, install).etag)
    used = {(verb, resource) for call in api.made for verb, resource, _ in needed(*call)}
    told = {(verb, resource) for verb, resource, _ in granted((*RIGHTS, *metrics_install.INSTALLING))}
    assert used <= told
    clean_up(room)


def with_gpu_nodes(room: Room) -> None:
    """Only then are the pods of others counted."""
    for node in room.api.list(kinds.NODE, None).items[:1]:
        room.api.merge(
            kinds.NODE,
            node["metadata"]["name"],
            None,
            {"status": {"capacity": {"example.com/gpu": "4"}, "allocatable": {"example.com/gpu": "4"}}},
            part="status",
        )


def clean_up(room: Room) -> None:
    for kind, name in (
        (kinds.API_SERVICE, kinds.EXTERNAL_METRICS),
        (kinds.CLUSTER_ROLE_BINDING, metrics_install.READER),
        (kinds.CLUSTER_ROLE, metrics_install.READER),
    ):
        room.api.delete(kind, name, None)
    for kind in (kinds.SERVICE, kinds.ENDPOINTS):
        room.api.delete(kind, metrics_install.SERVICE, room.namespace)


def test_no_right_is_a_wildcard_and_secrets_are_never_listed() -> None:
    for one in (*RIGHTS, *metrics_install.INSTALLING):
        assert "*" not in (one.kind.group, one.resource, *one.verbs), one
        assert one.why, one
    secrets = [verb for one in RIGHTS if one.kind is kinds.SECRET for verb in one.verbs]
    assert not {"list", "watch"} & set(secrets)
    assert not [one for one in RIGHTS if one.kind is kinds.SECRET and one.across]
    dangerous = {"escalate", "bind", "impersonate", "deletecollection"}
    assert not dangerous & {verb for verb, _, _ in granted((*RIGHTS, *metrics_install.INSTALLING))}


RBAC = "rbac.authorization.k8s.io/v1"
MADE = {
    "ServiceAccount": kinds.SERVICE_ACCOUNT,
    "Role": Kind("Role", RBAC, "roles"),
    "RoleBinding": Kind("RoleBinding", RBAC, "rolebindings"),
    "ClusterRole": kinds.CLUSTER_ROLE,
    "ClusterRoleBinding": kinds.CLUSTER_ROLE_BINDING,
}


def as_account(room: Room, name: str, table: tuple[rights.Right, ...]) -> Api:
    """An account that has exactly this, as the page's YAML makes it."""
    for one in rights.role(name, room.namespace, table):
        room.api.apply(MADE[one["kind"]], one, force=True)
    path = f"{kinds.SERVICE_ACCOUNT.path(room.namespace, name)}/token"
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = room.api._json("POST", path, body=asked, what="make a token")
    connection = replace(room.api.connection, token=answer["status"]["token"])
    return Api(connection)


@pytest.mark.processes
def test_an_account_with_this_role_alone_lives_a_whole_life(kubernetes_real: Room, key: str) -> None:
    with_gpu_nodes(kubernetes_real)
    api = as_account(kubernetes_real, "least", RIGHTS)
    report = checkup.look(api, kubernetes_real.place)
    assert report.identity == f"system:serviceaccount:{kubernetes_real.namespace}:least"
    assert (report.missing, report.missing_optional) == ((), ())
    live_through(kubernetes_real, Recorded(api), key)


@pytest.mark.processes
def test_an_account_without_one_right_is_told_which(kubernetes_real: Room) -> None:
    table = tuple(one for one in RIGHTS if one.kind not in (kinds.SERVICE, kinds.NODE))
    report = checkup.look(as_account(kubernetes_real, "less", table), kubernetes_real.place)
    assert set(report.missing) == {f"{verb} services" for verb in rights.WRITE}
    assert report.missing_optional == ("list nodes",)
    assert not report.usable


@pytest.mark.processes
def test_the_rights_of_the_button_suffice_to_install_and_the_others_do_not(kubernetes_real: Room) -> None:
    from deployments.targets.kubernetes.errors import Refused

    install = wanted(kubernetes_real.namespace)
    with pytest.raises(Refused, match="not permitted"):
        metrics_install.plan(as_account(kubernetes_real, "plain", RIGHTS), install)
    able = as_account(kubernetes_real, "installer", (*RIGHTS, *metrics_install.INSTALLING))
    shown = metrics_install.plan(able, install)
    metrics_install.install(able, install, etag=shown.etag)
    assert metrics_install.plan(able, install).diff == ()
    clean_up(kubernetes_real)
