"""The deployment forms: what a person types, turned into the same spec that the API takes.

The spec's own values check it (`specs.read_spec`, the stack's schema), so a form and an API call are refused
with the same sentence; `take_refusal` puts each message beside its field.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django import forms

from controlplane.core.errors import SlipwayError
from controlplane.core.vocabulary import word_of
from controlplane.registry.models import Variant
from deployments import specs, stacks
from deployments.cluster_fields import PLACES, ClusterFields, initial_cluster
from deployments.domain.cluster import ClusterSettings
from deployments.domain.rollouts import Health
from deployments.domain.spec import DEFAULT_STACK, RevisionSpec, default_autoscaling
from deployments.domain.workload import Batching
from deployments.models import Target
from deployments.rollout_fields import RolloutFields, initial_rollout
from deployments.telemetry.signals import SignalName

_FIELD_OF = {
    "autoscaling.minReplicas": "min_replicas",
    "autoscaling.maxReplicas": "max_replicas",
    "autoscaling": "max_replicas",
    "rollout.steps": "steps",
    **{f"cluster.{place}": name for name, place in PLACES.items()},
}
"""Where a spec's field stands in the form; the others have the name of their last part."""


def take_refusal(form: forms.Form, error: SlipwayError) -> None:
    """Shows a service's refusal in the form: each message beside its field, the rest above the form."""
    placed = False
    for path, messages in error.fields.items():
        field = _field_of(path)
        if field in form.fields:
            placed = True
            for message in messages:
                form.add_error(field, _sentence(message))
    if not placed:
        form.add_error(None, f"{error.title} {error.detail}".strip())


def _field_of(path: str) -> str:
    """The longest part of the path that is known: what is wrong within a list or a map is said beside the whole."""
    parts = path.removeprefix("spec.").split(".")
    plain = [part.partition("[")[0] for part in parts]
    known = (".".join(plain[:length]) for length in range(len(plain), 0, -1))
    return next((_FIELD_OF[one] for one in known if one in _FIELD_OF), plain[-1])


def _sentence(message: str) -> str:
    return message[:1].upper() + message[1:] + ("" if message.endswith((".", "?", "!")) else ".")


def variant_key(variant: Variant) -> str:
    return f"{variant.version.model.name}/{variant.version.number}/{variant.number}"


def variant_choices(variants: list[Variant]) -> list[tuple[str, str]]:
    return [(variant_key(one), _variant_label(one)) for one in variants]


def _variant_label(variant: Variant) -> str:
    verdict = word_of(variant.verdict).label.lower() if variant.verdict else ""
    return f"{variant.version} · {variant.label}" + (f" – {verdict}" if verdict else "")


class SpecForm(RolloutFields, ClusterFields):
    """The fields of a revision. `variants` are those that the reader may choose; `target` is where it will run, None
    where that is chosen in the form. What there is no field for stays as `begun_from` has it."""

    variant = forms.ChoiceField(
        label="Variant", help_text="What is served. The verdict is of its measurement against its parent."
    )
    stack = forms.ChoiceField(
        label="Stack",
        required=False,
        help_text="The software that serves it. Not every stack takes every variant.",
    )
    max_batch_size = forms.IntegerField(
        label="Largest batch", help_text="Rows in one run of the model at most; 1 turns batching off."
    )
    preferred_batch_size = forms.CharField(
        label="Preferred sizes",
        required=False,
        help_text="A batch of one of these sizes leaves at once: 4, 8. Empty waits for the delay.",
    )
    max_queue_delay_microseconds = forms.IntegerField(
        label="Queue delay", help_text="How long the oldest request waits for company."
    )
    max_queue_size = forms.IntegerField(
        label="Queue limit", help_text="Waiting requests kept at most; the next is answered 429."
    )
    threads = forms.IntegerField(
        label="Threads", help_text="Of one inference. Replicas times threads should not exceed the cores."
    )
    min_replicas = forms.IntegerField(
        label="Fewest replicas", required=False, help_text="Empty: 1 on this machine, 2 on a cluster."
    )
    max_replicas = forms.IntegerField(
        label="Most replicas", required=False, help_text="Empty: 4 on this machine, 20 on a cluster."
    )
    queue_depth_target = forms.DecimalField(
        label="Waiting requests per replica",
        min_value=0,
        help_text="Signal 1, queue depth: more than this on average asks for more replicas.",
    )
    in_flight_target = forms.DecimalField(
        label="Requests in flight per replica",
        required=False,
        min_value=0,
        help_text="Signal 2, waiting and running. Empty: 0.7 × 2 × the largest batch.",
    )
    queue_only = forms.BooleanField(
        label="Keep only queue depth",
        required=False,
        help_text="Not advised: the queue is empty whenever capacity suffices, so replicas are taken away until it "
        "is full again, and the number swings.",
    )

    def __init__(
        self,
        *args: Any,
        variants: list[Variant],
        target: Target | None = None,
        begun_from: RevisionSpec | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._target = target
        self._begun_from = begun_from
        if target is not None and not target.is_cluster:
            self.leave_out_cluster()
        self._variants = {variant_key(one): one for one in variants}
        chosen = self.fields["variant"]
        assert isinstance(chosen, forms.ChoiceField)
        chosen.choices = variant_choices(variants)
        software = self.fields["stack"]
        assert isinstance(software, forms.ChoiceField)
        software.choices = stack_choices()

    def leave_out_cluster(self) -> None:
        for name in PLACES:
            del self.fields[name]

    @property
    def for_clusters(self) -> bool:
        """Whether it has the fields that only a cluster is told."""
        return "autoscaler" in self.fields

    @property
    def opens_cluster(self) -> bool:
        """Whether these stand open: there is no other target to choose, or something in them is wrong."""
        return self._target is not None or any(name in self.errors for name in PLACES)

    def chosen_target(self) -> Target | None:
        return self._target

    def chosen_variant(self) -> Variant:
        return self._variants[self.cleaned_data["variant"]]

    def clean_preferred_batch_size(self) -> list[int]:
        text = self.cleaned_data["preferred_batch_size"]
        parts = [part.strip() for part in text.replace(";", ",").split(",") if part.strip()]
        if not all(part.isascii() and part.isdecimal() and len(part) < 6 for part in parts):
            raise forms.ValidationError("Write whole numbers with commas between them, such as 4, 8.")
        return [int(part) for part in parts]

    def document(self) -> dict[str, Any]:
        """The spec as the API takes it. Raises InvalidInput."""
        given, target = self.cleaned_data, self.chosen_target()
        document = {
            "stack": given["stack"] or DEFAULT_STACK,
            "threads": given["threads"],
            "batching": {name: given[name] for name in _BATCHING},
            "rollout": self.rollout_document(),
            "autoscaling": self._autoscaling(specs.usual(target)),
        }
        if self._begun_from is not None:
            document |= {name: getattr(self._begun_from, name) for name in _NO_FIELD}
        if target is not None and target.is_cluster:
            document["cluster"] = self.cluster_document()
        elif target is not None:
            self.refuse_without_cluster(target.name)
        return document

    def _autoscaling(self, usual: specs.Usual) -> dict[str, Any]:
        """Raises InvalidInput for batching that no default can be made of."""
        given = self.cleaned_data
        fewest, most = given["min_replicas"], given["max_replicas"]
        fewest = usual.min_replicas if fewest is None else fewest
        most = max(usual.max_replicas, fewest) if most is None else most
        autoscaling = default_autoscaling(
            min_replicas=max(1, fewest),
            max_replicas=max(1, most, fewest),
            batching=Batching.from_json({name: given[name] for name in _BATCHING}),
        )
        autoscaling |= {"minReplicas": fewest, "maxReplicas": most}
        if self._begun_from is not None:
            autoscaling.pop("behavior", None)
            autoscaling |= {
                name: rules for name, rules in self._begun_from.autoscaling.items() if name == "behavior"
            }
        targets = {
            SignalName.QUEUE_DEPTH: given["queue_depth_target"],
            SignalName.IN_FLIGHT: given["in_flight_target"],
        }
        if given["queue_only"]:
            autoscaling["metrics"] = [
                one for one in autoscaling["metrics"] if _signal_of(one) == SignalName.QUEUE_DEPTH
            ]
        for metric in autoscaling["metrics"]:
            wanted = targets[_signal_of(metric)]
            if wanted is not None:
                metric["external"]["target"]["averageValue"] = _amount(wanted)
        return autoscaling

    def spec(self) -> RevisionSpec:
        """Raises InvalidInput that names the fields."""
        return specs.read_spec(self.document(), self.chosen_target())


def _signal_of(metric: Mapping[str, Any]) -> SignalName:
    return SignalName(metric["external"]["metric"]["name"])


def stack_choices() -> list[tuple[str, str]]:
    """Those first that run on any target."""
    found = sorted(map(stacks.load, stacks.TABLE), key=lambda stack: not stack.runs_here)
    return [
        (one.key, one.label if one.runs_here else f"{one.label}, on a Kubernetes cluster only")
        for one in found
    ]


def _amount(value: Decimal) -> str:
    """As a Kubernetes quantity: whole, or in thousandths."""
    return f"{int(value)}" if value == int(value) else f"{round(value * 1000)}m"


_NO_FIELD = ("environment", "memory_bytes")
_BATCHING = ("max_batch_size", "preferred_batch_size", "max_queue_delay_microseconds", "max_queue_size")


def initial_of(spec: RevisionSpec) -> dict[str, Any]:
    """The form's values for a spec, so that a new revision begins as the live one."""
    hpa = spec.hpa()
    targets = {metric.name: metric.target.words().replace(",", "") for metric in hpa.metrics}
    batching = spec.batching.to_json()
    return {
        **{name: batching[name] for name in _BATCHING},
        **initial_rollout(spec.rollout),
        **initial_cluster(spec.cluster or ClusterSettings()),
        "stack": spec.stack,
        "preferred_batch_size": ", ".join(str(size) for size in spec.batching.preferred_batch_size),
        "threads": spec.threads,
        "min_replicas": hpa.min_replicas,
        "max_replicas": hpa.max_replicas,
        "queue_depth_target": targets.get(SignalName.QUEUE_DEPTH, "10"),
        "in_flight_target": targets.get(SignalName.IN_FLIGHT, ""),
        "queue_only": SignalName.IN_FLIGHT not in targets,
    }


_BY_TARGET = ("min_replicas", "max_replicas", "progress_deadline_s", "in_flight_target")


def defaults() -> Mapping[str, Any]:
    """Empty where the default hangs on what else is chosen."""
    return initial_of(specs.read_spec({})) | dict.fromkeys(_BY_TARGET, "")


def _target_label(target: Target) -> str:
    if not target.is_cluster:
        return target.name
    return f"{target.name}, Kubernetes namespace {target.settings.get('namespace', '')}"


class DeploymentForm(SpecForm):
    name = forms.CharField(
        label="Name",
        max_length=63,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="Lower-case letters, digits and inner dashes. It becomes part of the address.",
    )
    target = forms.ChoiceField(label="Target", help_text="Where the replicas run.")
    protected = forms.BooleanField(
        label="Ask clients for an API key",
        required=False,
        help_text="The key is shown once. Without it everyone who reaches the address may ask.",
    )

    def __init__(self, *args: Any, targets: list[Target], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._targets = {one.name: one for one in targets}
        chosen = self.fields["target"]
        assert isinstance(chosen, forms.ChoiceField)
        chosen.choices = [(name, _target_label(one)) for name, one in self._targets.items()]
        if not any(one.is_cluster for one in targets):
            self.leave_out_cluster()

    def chosen_target(self) -> Target:
        return self._targets[self.cleaned_data["target"]]


class FilterForm(forms.Form):
    q = forms.CharField(
        label="Name or model",
        required=False,
        max_length=100,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "Name or model"}),
    )
    health = forms.ChoiceField(
        label="Health",
        required=False,
        choices=[("", "Any health"), *((one.value, word_of(one).label) for one in Health)],
    )


class ScaleForm(forms.Form):
    replicas = forms.IntegerField(label="Replicas", min_value=0, max_value=256)


class LoadForm(forms.Form):
    rate_per_s = forms.FloatField(label="Rate", initial=20)
    minutes = forms.IntegerField(label="For", min_value=1, max_value=30, initial=10)
