"""Pods' metrics pages through the API server, for a Slipway that stands outside of the cluster's network."""

from urllib.parse import urlsplit

from deployments.domain.workload import ReplicaStatus
from deployments.targets.kubernetes.api import Api, context_of
from deployments.targets.kubernetes.kinds import POD
from deployments.targets.port import Way


def way(api: Api, namespace: str) -> Way:
    server = api.connection.server

    def page(replica: ReplicaStatus) -> str:
        return f"{server}{POD.path(namespace, replica.name)}:{urlsplit(replica.url).port}/proxy/metrics"

    secure = server.startswith("https:")
    return Way(
        page=page,
        headers=lambda: {name: value for name, value in api.headers().items() if name != "Accept"},
        context=context_of(api.connection) if secure else None,
        server_name=api.connection.server_name,
    )
