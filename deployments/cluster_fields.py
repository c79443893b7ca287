"""What only a cluster is told, as form fields: in the form of a new deployment they stand there for every target,
because without a script nothing can take them away when another target is chosen.
"""

from collections.abc import Mapping
from typing import Any

from django import forms

from controlplane.core.errors import InvalidInput
from deployments.domain import lines
from deployments.domain.cluster import ClusterSettings

AUTOSCALERS = {
    "hpa": "The cluster's own HorizontalPodAutoscaler",
    "keda": "KEDA, where it is installed",
    "slipway": "Slipway, every 2 s",
    "none": "Nobody: the size is set by hand",
}
PLACES = {
    "cpu": "resources.cpu",
    "memory": "resources.memory",
    "memory_limit": "resources.memory_limit",
    "cpu_limit": "resources.cpu_limit",
    "gpus": "resources.gpus",
    "gpu_resource": "resources.gpu_resource",
    "readiness_after_s": "probes.initial_delay_s",
    "readiness_every_s": "probes.period_s",
    "startup_s": "probes.startup_s",
    "image": "image",
    "image_pull_secret": "image_pull_secret",
    "priority_class": "priority_class",
    "node_selector": "node_selector",
    "tolerations": "tolerations",
    "volume_claim": "volume_claim",
    "allow_from": "allow_from",
    "gateway": "route.gateway",
    "gateway_namespace": "route.namespace",
    "hostname": "route.hostname",
    "autoscaler": "autoscaler",
}
"""Where each field stands in `ClusterSettings`."""
_ONE_LINE = {"autocomplete": "off", "spellcheck": "false"}


def _text(label: str, help_text: str = "", **more: Any) -> forms.CharField:
    return forms.CharField(
        label=label,
        required=False,
        max_length=512,
        help_text=help_text,
        widget=forms.TextInput(attrs=_ONE_LINE),
        **more,
    )


def _some_lines(label: str, help_text: str) -> forms.CharField:
    widget = forms.Textarea(attrs=_ONE_LINE | {"rows": 3})
    return forms.CharField(label=label, required=False, max_length=8000, help_text=help_text, widget=widget)


class ClusterFields(forms.Form):
    """All may be left empty, which is their default."""

    autoscaler = forms.ChoiceField(
        label="Scaled by",
        required=False,
        choices=list(AUTOSCALERS.items()),
        help_text="By the two signals above, which Slipway gives to whoever scales.",
    )
    cpu = _text("CPU request", "Cores of one replica: 2, or 500m.")
    memory = _text("Memory request", "Of one replica: what a node has to have free.")
    memory_limit = _text("Memory limit", "A replica that takes more is ended.")
    cpu_limit = _text("CPU limit", "Empty: not throttled, which is better for latency.")
    gpus = forms.IntegerField(
        label="GPUs", required=False, help_text="Of one replica. Empty: one where the variant needs it."
    )
    gpu_resource = _text("GPU resource", "As the device plug-in names it: nvidia.com/gpu, or a MIG slice.")
    readiness_after_s = forms.IntegerField(
        label="First readiness check", required=False, help_text="After the start of the replica."
    )
    readiness_every_s = forms.IntegerField(label="Then every", required=False)
    startup_s = forms.IntegerField(
        label="Longest start", required=False, help_text="A replica that is not up by then is restarted."
    )
    image = _text("Image", "Empty: the stack's own. A digest (name@sha256:…) keeps it from moving.")
    image_pull_secret = _text("Image pull secret", "A Secret of the namespace.")
    priority_class = _text("Priority class")
    node_selector = _some_lines("Node selector", "Labels that a node must have, one per line: pool=gpu")
    tolerations = _some_lines(
        "Tolerations", "Taints that it may stand on, one per line: nvidia.com/gpu=present:NoSchedule"
    )
    volume_claim = _text(
        "Volume claim", "Keeps fetched variants between starts. Empty: fetched at every start."
    )
    allow_from = _text("Allowed namespaces", "Whose pods may call, with commas between. Empty: all.")
    gateway = _text(
        "Gateway", "Puts a route in front: with it a canary's share is exact, else it goes by replicas."
    )
    gateway_namespace = _text("Namespace of the Gateway", "Empty: the deployment's own.")
    hostname = _text("Host name", "Of the route. Empty: every one of the Gateway.")

    def cluster_document(self) -> dict[str, Any]:
        """As a spec has it, without what was left empty. Raises InvalidInput that names the field."""
        found: dict[str, Any] = {}
        for name, value in self._given().items():
            outer, _, inner = PLACES[name].rpartition(".")
            (found.setdefault(outer, {}) if outer else found)[inner] = value
        if "route" in found:
            found["route"].setdefault("gateway", "")
        return found

    def _given(self) -> dict[str, Any]:
        given = {name: self.cleaned_data.get(name) for name in PLACES}
        found = {name: value for name, value in given.items() if value not in (None, "")}
        if text := found.get("node_selector"):
            found["node_selector"] = lines.read_labels("spec.cluster.node_selector", text)
        if text := found.get("tolerations"):
            found["tolerations"] = lines.read_tolerations("spec.cluster.tolerations", text)
        if text := found.get("allow_from"):
            found["allow_from"] = [part for part in text.replace(",", " ").split() if part]
        return found

    def refuse_without_cluster(self, target: str) -> None:
        """What was left as it was harms nobody. Raises InvalidInput beside each field that was changed."""
        usual = initial_cluster(ClusterSettings())
        changed = [
            name
            for name in PLACES
            if (value := self.cleaned_data.get(name)) not in (None, "") and str(value) != str(usual[name])
        ]
        if changed:
            raise InvalidInput(
                "no_cluster",
                f"“{target}” is no cluster.",
                "Empty what is only for clusters, or choose a target that is one.",
                fields={
                    f"spec.cluster.{PLACES[name]}": [f"Only for clusters, and “{target}” is none"]
                    for name in changed
                },
            )


def initial_cluster(settings: ClusterSettings) -> dict[str, Any]:
    """The inverse of `cluster_document`; GPUs are empty where there are none, so that a variant can ask for its own."""
    document: Mapping[str, Any] = settings.to_json()
    found = {name: _at(document, place) for name, place in PLACES.items()}
    return found | {
        "gpus": found["gpus"] or "",
        "node_selector": lines.write_labels(settings.node_selector),
        "tolerations": lines.write_tolerations(settings.tolerations),
        "allow_from": ", ".join(settings.allow_from),
    }


def _at(document: Mapping[str, Any], place: str) -> Any:
    value: Any = document
    for part in place.split("."):
        value = value.get(part) if value else None
    return "" if value is None else value
