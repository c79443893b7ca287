"""What Slipway does in a cluster, and why: the one table of rights.

The page prints it as a Role, the pre-flight asks the cluster about each row, and a test holds every call that the
target makes against it, and each verb against a call. Refused: `*`, and listing secrets: a pull secret is only looked
for by its name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deployments.targets.kubernetes import kinds
from deployments.targets.kubernetes.kinds import Kind

WRITE = ("get", "list", "create", "patch", "delete")
FOLLOW = ("get", "list", "watch", "create", "patch", "delete")
BY_NAME = ("get", "create", "patch", "delete")
READ = ("get", "list", "watch")


@dataclass(frozen=True)
class Right:
    """`names` limits it to objects of those names; `optional` rights are missed by a sentence, not by a failure.
    `namespace` is another one than the target's; `everywhere` is all of them."""

    kind: Kind
    verbs: tuple[str, ...]
    why: str
    part: str = ""
    optional: bool = False
    names: tuple[str, ...] = ()
    everywhere: bool = False

    @property
    def across(self) -> bool:
        """Granted for the whole cluster."""
        return self.everywhere or not self.kind.namespaced

    @property
    def resource(self) -> str:
        return f"{self.kind.plural}/{self.part}" if self.part else self.kind.plural


RIGHTS = (
    Right(kinds.DEPLOYMENT, FOLLOW, "The replicas of an endpoint."),
    Right(kinds.DEPLOYMENT, ("patch",), "A first size, and a person's choice of one.", part="scale"),
    Right(kinds.POD, READ, "Which replicas there are, and why one is not ready."),
    Right(kinds.POD, ("get",), "The last lines of a replica.", part="log", optional=True),
    Right(kinds.POD, ("get",), "Measuring replicas through the API server.", part="proxy", optional=True),
    Right(kinds.SERVICE, WRITE, "The address of an endpoint."),
    Right(kinds.CONFIG_MAP, FOLLOW, "A revision's configuration, and the record of what was applied."),
    Right(
        kinds.SECRET,
        BY_NAME,
        "The token with which an endpoint's own pods fetch its variant, and whether a pull secret exists. Always "
        "by name: they are never listed.",
    ),
    Right(kinds.SERVICE_ACCOUNT, WRITE, "An account without rights for an endpoint's pods."),
    Right(kinds.HPA, FOLLOW, "Autoscaling."),
    Right(kinds.BUDGET, WRITE, "Drained nodes take one replica at a time."),
    Right(kinds.NETWORK_POLICY, WRITE, "Who may call an endpoint."),
    Right(kinds.EVENT, ("list", "create"), "What happened, and telling what was applied.", optional=True),
    Right(kinds.QUOTA, ("list",), "Whether a rollout fits the namespace's quota.", optional=True),
    Right(kinds.HTTP_ROUTE, WRITE, "Traffic by weight, where the Gateway API is installed.", optional=True),
    Right(kinds.SCALED_OBJECT, WRITE, "Autoscaling by KEDA, where it is installed.", optional=True),
    Right(kinds.TRIGGER_AUTHENTICATION, WRITE, "What KEDA shows to Slipway when it asks.", optional=True),
    Right(kinds.NAMESPACE, ("get",), "Whether the namespace exists.", optional=True),
    Right(kinds.NODE, ("list",), "Which GPUs there are.", optional=True),
    Right(kinds.POD, ("list",), "How many GPUs are taken by pods of others.", optional=True, everywhere=True),
    Right(kinds.PRIORITY_CLASS, ("get",), "Whether a priority class exists.", optional=True),
    Right(
        kinds.API_SERVICE,
        ("get",),
        "Who answers the autoscaler's questions.",
        optional=True,
        names=(kinds.EXTERNAL_METRICS,),
    ),
)
GRANTED_TO_ALL = (kinds.ACCESS_REVIEW, kinds.RULES_REVIEW, kinds.SELF_REVIEW)
"""What an account may ask about itself: system:basic-user grants it to everybody who is logged in."""


def role(name: str, namespace: str, rights: Sequence[Right] = RIGHTS) -> list[dict[str, Any]]:
    """A Role for what lies in the namespace, a ClusterRole for the rest, and what binds both to the account."""
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    inside = [one for one in rights if not one.across]
    outside = [one for one in rights if one.across]
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


def _rules(rights: Sequence[Right]) -> list[dict[str, Any]]:
    return [
        {"apiGroups": [one.kind.group], "resources": [one.resource], "verbs": [*one.verbs]}
        | ({"resourceNames": [*one.names]} if one.names else {})
        for one in rights
    ]


def review(right: Right, verb: str, namespace: str) -> dict[str, Any]:
    """The question “may I?” as the cluster takes it."""
    asked: dict[str, str] = {"verb": verb, "group": right.kind.group, "resource": right.kind.plural}
    asked |= {"subresource": right.part} if right.part else {}
    asked |= {"namespace": namespace} if not right.across else {}
    asked |= {"name": right.names[0]} if right.names else {}
    kind = kinds.ACCESS_REVIEW
    return {"apiVersion": kind.api_version, "kind": kind.kind, "spec": {"resourceAttributes": asked}}
