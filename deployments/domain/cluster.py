"""What a revision asks of a cluster: the part of its spec that a machine without one has no use for.

Field names are those of the pages; `targets.kubernetes.render` writes them as Kubernetes does. Everything a
cluster would refuse is refused here, with the field's name, because a refusal hours later in a rollout helps
nobody. Refused: a free piece of pod template that is merged in, which could take back what the plan promises.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from deployments.domain.hpa.errors import InvalidHpa
from deployments.domain.hpa.quantity import Quantity
from deployments.domain.wire import Document, refuse

MAX_GPUS = 64
_MOST_CPU, _MOST_BYTES = Quantity.parse(1024), Quantity.parse("64Ti")
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
# [registry[:port]/]path[:tag][@sha256:digest], as the distribution's reference grammar has it.
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)


def _amount(name: str, text: str, most: Quantity) -> Quantity:
    try:
        amount = Quantity.parse(text, field=name)
    except InvalidHpa as error:
        raise refuse(name, f"must be a quantity such as 500m, 2 or 4Gi, but is “{text[:40]}”") from error
    if not 0 < amount.nano <= most.nano:
        raise refuse(name, f"must be above 0 and at most {most.words()}, but is “{text[:40]}”")
    return amount


def _named(name: str, value: str, pattern: re.Pattern[str], form: str, *, most: int = 253) -> None:
    if len(value) > most or pattern.fullmatch(value) is None:
        raise refuse(name, f"must be {form}, but is “{value[:60]}”")


def check_label(name: str, key: str, value: str) -> None:
    """A label's or node selector's key and value, by Kubernetes' rules. Raises InvalidInput about `name`."""
    prefix, slash, rest = key.rpartition("/")
    if slash and (len(prefix) > 253 or _SUBDOMAIN.fullmatch(prefix) is None):
        raise refuse(f"{name}.{key[:60]}", "must have a DNS name before its slash")
    _named(f"{name}.{key[:60]}", rest, _LABEL_NAME, "a label key such as example.com/pool", most=63)
    _named(f"{name}.{key[:60]}", value, _LABEL_VALUE, "at most 63 letters, digits, dots and dashes", most=63)


@dataclass(frozen=True, kw_only=True)
class Resources(Document):
    """Of one replica. Quantities are text as Kubernetes writes them; `cpu_limit` None throttles nothing.

    `gpu_resource` names what the device plug-in offers: “nvidia.com/gpu”, or a MIG slice such as
    “nvidia.com/mig-1g.10gb”.
    """

    cpu: str = "2"
    memory: str = "4Gi"
    memory_limit: str = "8Gi"
    cpu_limit: str | None = None
    gpus: int = 0
    gpu_resource: str = "nvidia.com/gpu"

    def __post_init__(self) -> None:
        cpu = _amount("cluster.resources.cpu", self.cpu, _MOST_CPU)
        memory = _amount("cluster.resources.memory", self.memory, _MOST_BYTES)
        limit = _amount("cluster.resources.memory_limit", self.memory_limit, _MOST_BYTES)
        if limit < memory:
            raise refuse(
                "cluster.resources.memory_limit",
                f"({self.memory_limit}) is below the request ({self.memory})",
            )
        if (
            self.cpu_limit is not None
            and _amount("cluster.resources.cpu_limit", self.cpu_limit, _MOST_CPU) < cpu
        ):
            raise refuse(
                "cluster.resources.cpu_limit", f"({self.cpu_limit}) is below the request ({self.cpu})"
            )
        if not 0 <= self.gpus <= MAX_GPUS:
            raise refuse("cluster.resources.gpus", f"must lie between 0 and {MAX_GPUS}, but is {self.gpus:,}")
        if "/" not in self.gpu_resource:
            raise refuse("cluster.resources.gpu_resource", "must be a resource such as nvidia.com/gpu")
        check_label("cluster.resources.gpu_resource", self.gpu_resource, "")

    @property
    def memory_may_grow(self) -> bool:
        """The limit is above the request: a node may hold less than its pods can come to use."""
        return Quantity.parse(self.memory_limit) > Quantity.parse(self.memory)


@dataclass(frozen=True, kw_only=True)
class Toleration(Document):
    """Of a node's taint. An empty `value` tolerates any value of the key; an empty `effect` every effect."""

    key: str
    value: str = ""
    effect: str = ""

    def __post_init__(self) -> None:
        check_label("cluster.tolerations", self.key, self.value)
        if self.effect not in ("", "NoSchedule", "PreferNoSchedule", "NoExecute"):
            raise refuse(
                "cluster.tolerations.effect", "must be NoSchedule, PreferNoSchedule, NoExecute or empty"
            )


@dataclass(frozen=True, kw_only=True)
class Probes(Document):
    """Seconds. Readiness asks after `initial_delay_s` and every `period_s`; a start may take `startup_s`.

    Until it has started, liveness is not asked, so a slow load does not end it.
    """

    initial_delay_s: int = 30
    period_s: int = 5
    startup_s: int = 600

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("initial_delay_s", self.initial_delay_s, 0, 3600),
            ("period_s", self.period_s, 1, 300),
            ("startup_s", self.startup_s, 10, 7200),
        ):
            if not low <= value <= high:
                raise refuse(
                    f"cluster.probes.{name}", f"must lie between {low} and {high:,}, but is {value:,}"
                )


@dataclass(frozen=True, kw_only=True)
class Route(Document):
    """A Gateway API HTTPRoute in front of the Service: traffic by weight needs one."""

    gateway: str
    namespace: str = ""
    hostname: str = ""

    def __post_init__(self) -> None:
        _named("cluster.route.gateway", self.gateway, _SUBDOMAIN, "the name of a Gateway")
        if self.namespace:
            _named("cluster.route.namespace", self.namespace, _LABEL, "the name of a namespace", most=63)
        if self.hostname:
            _named("cluster.route.hostname", self.hostname, _SUBDOMAIN, "a host name")


@dataclass(frozen=True, kw_only=True)
class ClusterSettings(Document):
    """`image` None takes the stack's own. `volume_claim` names a claim that keeps fetched variants between starts;
    empty fetches on every start. `allow_from` are namespaces whose pods may call; empty allows all.

    `autoscaler`: "hpa" (autoscaling/v2), "keda" (a ScaledObject that asks Slipway), "slipway" (our own loop writes
    the scale), "none". `queue_only` keeps the first metric alone.
    """

    resources: Resources = field(default_factory=Resources)
    probes: Probes = field(default_factory=Probes)
    image: str | None = None
    image_pull_secret: str = ""
    priority_class: str = ""
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    volume_claim: str = ""
    allow_from: tuple[str, ...] = ()
    route: Route | None = None
    autoscaler: str = "hpa"

    def __post_init__(self) -> None:
        if self.image is not None:
            _named(
                "cluster.image",
                self.image,
                _IMAGE,
                "an image such as registry.example.com/team/model:1.2",
                most=512,
            )
        for name in ("image_pull_secret", "priority_class", "volume_claim"):
            if value := getattr(self, name):
                _named(f"cluster.{name}", value, _SUBDOMAIN, "the name of an object")
        for key, value in self.node_selector.items():
            check_label("cluster.node_selector", key, value)
        for namespace in self.allow_from:
            _named("cluster.allow_from", namespace, _LABEL, "the name of a namespace", most=63)
        if self.autoscaler not in AUTOSCALERS:
            raise refuse("cluster.autoscaler", f"must be one of {', '.join(AUTOSCALERS)}")

    @property
    def by_digest(self) -> bool:
        return self.image is not None and "@sha256:" in self.image


AUTOSCALERS = ("hpa", "keda", "slipway", "none")


@dataclass(frozen=True, kw_only=True)
class ClusterWorkload(Document):
    """What only a cluster is told of a workload, beside its replicas.

    `autoscaling` is an HPA's spec in autoscaling/v2 names. `capabilities` are the compute capabilities that an
    engine was built for (“8.6”); empty for what runs anywhere.
    """

    settings: ClusterSettings
    autoscaling: dict[str, Any]
    recreate: bool = False
    max_surge: int = 1
    max_unavailable: int = 0
    progress_deadline_s: int = 600
    capabilities: tuple[str, ...] = ()
