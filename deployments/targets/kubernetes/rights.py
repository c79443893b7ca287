"""What Slipway does in a cluster, and why: the one table of rights.

The page prints it as a Role, the pre-flight asks the cluster about each row, and a test holds every call that the
target makes against it. Refused: `*`, and reading secrets: a pull secret is only looked for by its name.
"""

from dataclasses import dataclass
from typing import Any

from deployments.targets.kubernetes import kinds
from deployments.targets.kubernetes.kinds import Kind

WRITE = ("get", "list", "watch", "create", "patch", "delete")
READ = ("get", "list", "watch")


@dataclass(frozen=True)
class Right:
    """`names` limits it to objects of those names; `optional` rights are missed by a sentence, not by a failure."""

    kind: Kind
    verbs: tuple[str, ...]
    why: str
    part: str = ""
    optional: bool = False

    @property
    def resource(self) -> str:
        return f"{self.kind.plural}/{self.part}" if self.part else self.kind.plural


RIGHTS = (
    Right(kinds.DEPLOYMENT, WRITE, "The replicas of an endpoint."),
    Right(
        kinds.DEPLOYMENT,
        ("get", "patch", "update"),
        "A first size, and a person's choice of one.",
        part="scale",
    ),
    Right(kinds.POD, READ, "Which replicas there are, and why one is not ready."),
    Right(kinds.POD, ("get",), "The last lines of a replica.", part="log", optional=True),
    Right(kinds.POD, ("get",), "Measuring replicas through the API server.", part="proxy", optional=True),
    Right(kinds.SERVICE, WRITE, "The address of an endpoint."),
    Right(kinds.CONFIG_MAP, WRITE, "A revision's configuration, and the record of what was applied."),
    Right(kinds.SECRET, WRITE, "The token with which an endpoint's own pods fetch its variant."),
    Right(kinds.SERVICE_ACCOUNT, WRITE, "An account without rights for an endpoint's pods."),
    Right(kinds.HPA, WRITE, "Autoscaling."),
    Right(kinds.BUDGET, WRITE, "Drained nodes take one replica at a time."),
    Right(kinds.NETWORK_POLICY, WRITE, "Who may call an endpoint."),
    Right(
        kinds.EVENT,
        ("list", "watch", "create"),
        "What happened, and telling what was applied.",
        optional=True,
    ),
    Right(kinds.QUOTA, ("list",), "Whether a rollout fits the namespace's quota.", optional=True),
    Right(kinds.HTTP_ROUTE, WRITE, "Traffic by weight, where the Gateway API is installed.", optional=True),
    Right(kinds.SCALED_OBJECT, WRITE, "Autoscaling by KEDA, where it is installed.", optional=True),
    Right(kinds.TRIGGER_AUTHENTICATION, WRITE, "As above.", optional=True),
    Right(kinds.NAMESPACE, ("get",), "Whether the namespace exists.", optional=True),
    Right(kinds.NODE, ("list",), "Which GPUs there are, and whether one is free.", optional=True),
    Right(kinds.PRIORITY_CLASS, ("get",), "Whether a priority class exists.", optional=True),
    Right(kinds.API_SERVICE, ("get",), "Who answers the autoscaler's questions.", optional=True),
)


def role(name: str, namespace: str) -> list[dict[str, Any]]:
    """A Role for what lies in the namespace, a ClusterRole for the rest, and what binds both to the account."""
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    inside = [one for one in RIGHTS if one.kind.namespaced]
    outside = [one for one in RIGHTS if not one.kind.namespaced]
    api = "rbac.authorization.k8s.io"
    where = {"name": name, "namespace": namespace}
    across = {"name": f"{name}-{namespace}"}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": where},
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": where, "rules": _rules(inside)},
        {"apiVersion": f"{api}/v1", "kind": "RoleBinding", "metadata": where, "subjects": [subject],
         "roleRef": {"apiGroup": api, "kind": "Role", "name": name}},
        {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": across, "rules": _rules(outside)},
        {"apiVersion": f"{api}/v1", "kind": "ClusterRoleBinding", "metadata": across, "subjects": [subject],
         "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": across["name"]}},
    ]  # fmt: skip


def _rules(rights: list[Right]) -> list[dict[str, Any]]:
    return [
        {"apiGroups": [one.kind.group], "resources": [one.resource], "verbs": [*one.verbs]} for one in rights
    ]


def review(right: Right, verb: str, namespace: str) -> dict[str, Any]:
    """The question “may I?” as the cluster takes it."""
    asked: dict[str, str] = {"verb": verb, "group": right.kind.group, "resource": right.kind.plural}
    asked |= {"subresource": right.part} if right.part else {}
    asked |= {"namespace": namespace} if right.kind.namespaced else {}
    kind = kinds.ACCESS_REVIEW
    return {"apiVersion": kind.api_version, "kind": kind.kind, "spec": {"resourceAttributes": asked}}
