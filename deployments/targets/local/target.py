"""The local target as the rest of the product sees it: the port, spoken to the node."""

from collections.abc import Callable, Mapping
from typing import Any

from controlplane.core.errors import NotFound
from deployments.domain.plan import Finding, Plan
from deployments.domain.workload import DesiredDeployment, TargetEvent, TargetStatus
from deployments.targets.local.client import NodeClient
from deployments.targets.port import Unreachable, Way
from deployments.targets.wishes import plan

MAX_WAIT_S = 8.0


class LocalTarget:
    """See `deployments.targets.port.Target`."""

    rolls = False
    way: Way | None = None

    def __init__(self, client: NodeClient) -> None:
        self._node = client

    def preflight(self, desired: DesiredDeployment, *, live: DesiredDeployment | None) -> tuple[Finding, ...]:
        body = {"desired": desired.to_json(), "live": live.to_json() if live is not None else None}
        try:
            answer = self._node.post("deployments", desired.key, "preflight", body=body)
        except Unreachable as error:
            return (
                Finding.error(
                    "node_unreachable",
                    error.title,
                    error.detail,
                    "Start the node (“manage.py up” runs it) and look again.",
                ),
            )
        return tuple(Finding.from_json(finding) for finding in answer["findings"])

    def plan(self, desired: DesiredDeployment) -> Plan:
        return plan(desired, live=self.desired(desired.key))

    def apply(
        self,
        desired: DesiredDeployment,
        *,
        expected_live_digest: str | None = None,
        take_over: Callable[[str], None] | None = None,
    ) -> None:
        self._node.put("deployments", desired.key, body=desired.to_json(), if_match=expected_live_digest)

    def observe(self, key: str) -> TargetStatus:
        return TargetStatus.from_json(self._node.get("deployments", key))

    def observe_all(self) -> tuple[TargetStatus, ...]:
        return tuple(TargetStatus.from_json(one) for one in self._node.get("deployments")["deployments"])

    def desired(self, key: str) -> DesiredDeployment | None:
        try:
            return DesiredDeployment.from_json(self._node.get("deployments", key, "desired"))
        except NotFound:
            return None

    def scale(self, key: str, *, revision: int, replicas: int, generation: int) -> None:
        body = {"revision": revision, "replicas": replicas, "generation": generation}
        self._node.post("deployments", key, "scale", body=body)

    def logs(self, key: str, *, replica: str, tail: int = 200) -> tuple[str, ...]:
        return tuple(self._node.get("deployments", key, "replicas", replica, "log", tail=tail)["lines"])

    def events(self, key: str | None = None, *, after: int = 0, wait_s: float = 0) -> tuple[TargetEvent, ...]:
        wait_ms = int(min(MAX_WAIT_S, wait_s) * 1000)
        found = self._node.get("events", key=key, after=after, wait_ms=wait_ms)["events"]
        return tuple(TargetEvent.from_json(event) for event in found)

    def follow(self, changed: Callable[[str], None]) -> None:
        """It is asked each time: that costs little here."""

    def delete(self, key: str) -> None:
        self._node.delete("deployments", key)

    def proxy_stats(self) -> str:
        """The data proxy's own Prometheus page. Raises Unavailable while it is away."""
        return self._node.text("proxy", "stats")


def open_target(settings: Mapping[str, Any], secret: bytes) -> LocalTarget:
    """The node that the project's settings name: there is one."""
    from django.conf import settings as project

    environment = project.ENVIRONMENT
    return LocalTarget(NodeClient(environment.node_url, token=environment.node_token))
