"""From a target's settings and its sealed kubeconfig to a target that can be spoken to."""

import os
from collections.abc import Mapping
from typing import Any

from django.conf import settings as django
from django.core import signing

from controlplane.core import sealing
from controlplane.core.errors import Conflict
from deployments.targets.kubernetes import kubeconfig
from deployments.targets.kubernetes.api import Api
from deployments.targets.kubernetes.kubeconfig import Connection
from deployments.targets.kubernetes.render.place import FETCH_IMAGE, Place
from deployments.targets.kubernetes.target import KubernetesTarget

PULL_SALT = "slipway.pull"


def open_target(settings: Mapping[str, Any], secret: bytes) -> KubernetesTarget:
    """Connects to nothing yet. Raises InvalidInput for a kubeconfig that cannot be used, and Conflict for one that
    was sealed under another key."""
    return KubernetesTarget(
        Api(connection(settings, secret)),
        place(settings),
        pull_token=pull_token,
        proxied=is_proxied(settings),
    )


def is_proxied(settings: Mapping[str, Any]) -> bool:
    """`scrape` is "pods" (at their own addresses) or "proxy" (through the API server): without it, as is known to work
    from where Slipway runs."""
    return (settings.get("scrape") or ("pods" if settings.get("in_cluster") else "proxy")) == "proxy"


def connection(settings: Mapping[str, Any], secret: bytes) -> Connection:
    if settings.get("in_cluster"):
        refuse_in_cluster()
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        return kubeconfig.in_cluster(host=host, port=port)
    return kubeconfig.read(sealing.opened(secret), context=settings.get("context", ""))


def refuse_in_cluster() -> None:
    """Raises Conflict where the operator does not lend Slipway's own account to teams."""
    if not django.ENVIRONMENT.in_cluster:
        raise Conflict(
            "in_cluster_off",
            "Slipway's own account is not lent to targets here.",
            "An operator can allow it with SLIPWAY_IN_CLUSTER. Otherwise paste a kubeconfig of an account of its own.",
            fields={"in_cluster": ["The operator does not allow it (SLIPWAY_IN_CLUSTER)."]},
        )


def place(settings: Mapping[str, Any]) -> Place:
    return Place(
        namespace=settings["namespace"],
        fetch_url=settings.get("fetch_url", ""),
        fetch_ca=settings.get("fetch_ca", ""),
        fetch_image=settings.get("fetch_image") or FETCH_IMAGE,
        slipway_namespace=settings.get("slipway_namespace", ""),
        metrics_url=settings.get("metrics_url", ""),
        keda_secret=settings.get("keda_secret", ""),
    )


def pull_token(key: str) -> str:
    """With which a deployment's pods fetch its variants, and nothing else; it ends with the deployment. The same each
    time, or every apply would change a Secret."""
    return signing.Signer(salt=PULL_SALT).sign(key)


def deployment_of(token: str) -> str:
    """The key of the deployment that a token was made for; raises signing.BadSignature."""
    return signing.Signer(salt=PULL_SALT).unsign(token)
