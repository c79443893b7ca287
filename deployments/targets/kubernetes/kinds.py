"""The kinds of objects that this target reads and writes: one table, with the paths of the API."""

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True)
class Kind:
    """`managed` kinds are the ones that Slipway makes, listed in the order in which they go."""

    kind: str
    api_version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None, name: str = "") -> str:
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        within = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced and namespace else ""
        return f"{root}{within}/{self.plural}" + (f"/{quote(name, safe='')}" if name else "")

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]


POD = Kind("Pod", "v1", "pods")
EVENT = Kind("Event", "v1", "events")
NODE = Kind("Node", "v1", "nodes", namespaced=False)
NAMESPACE = Kind("Namespace", "v1", "namespaces", namespaced=False)
QUOTA = Kind("ResourceQuota", "v1", "resourcequotas")
SECRET = Kind("Secret", "v1", "secrets")
CONFIG_MAP = Kind("ConfigMap", "v1", "configmaps")
SERVICE = Kind("Service", "v1", "services")
SERVICE_ACCOUNT = Kind("ServiceAccount", "v1", "serviceaccounts")
DEPLOYMENT = Kind("Deployment", "apps/v1", "deployments")
REPLICA_SET = Kind("ReplicaSet", "apps/v1", "replicasets")
HPA = Kind("HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers")
BUDGET = Kind("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets")
NETWORK_POLICY = Kind("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies")
HTTP_ROUTE = Kind("HTTPRoute", "gateway.networking.k8s.io/v1", "httproutes")
SCALED_OBJECT = Kind("ScaledObject", "keda.sh/v1alpha1", "scaledobjects")
TRIGGER_AUTHENTICATION = Kind("TriggerAuthentication", "keda.sh/v1alpha1", "triggerauthentications")
PRIORITY_CLASS = Kind("PriorityClass", "scheduling.k8s.io/v1", "priorityclasses", namespaced=False)
API_SERVICE = Kind("APIService", "apiregistration.k8s.io/v1", "apiservices", namespaced=False)
ACCESS_REVIEW = Kind(
    "SelfSubjectAccessReview", "authorization.k8s.io/v1", "selfsubjectaccessreviews", namespaced=False
)
SELF_REVIEW = Kind("SelfSubjectReview", "authentication.k8s.io/v1", "selfsubjectreviews", namespaced=False)
CLUSTER_ROLE = Kind("ClusterRole", "rbac.authorization.k8s.io/v1", "clusterroles", namespaced=False)
CLUSTER_ROLE_BINDING = Kind(
    "ClusterRoleBinding", "rbac.authorization.k8s.io/v1", "clusterrolebindings", namespaced=False
)
ENDPOINTS = Kind("Endpoints", "v1", "endpoints")
EXTERNAL_METRICS = "v1beta1.external.metrics.k8s.io"
"""The one APIService that says who answers the autoscalers of a cluster."""

RULES_REVIEW = Kind(
    "SelfSubjectRulesReview", "authorization.k8s.io/v1", "selfsubjectrulesreviews", namespaced=False
)

CORE_KINDS = (
    HPA, SERVICE, NETWORK_POLICY, BUDGET, DEPLOYMENT, CONFIG_MAP, SECRET, SERVICE_ACCOUNT,
)  # fmt: skip
"""What every cluster has and Slipway writes, in the order in which it is deleted."""
OPTIONAL_KINDS = (HTTP_ROUTE, SCALED_OBJECT, TRIGGER_AUTHENTICATION)
"""What is there only where somebody installed it."""
BY_KIND = {one.kind: one for one in (*CORE_KINDS, *OPTIONAL_KINDS, POD, REPLICA_SET, EVENT)}


def of(manifest: dict[str, object]) -> Kind:
    return BY_KIND[str(manifest["kind"])]
