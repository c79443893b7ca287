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
from deployments.domain.rollouts import Health
from deployments.domain.spec import DEFAULT_STACK, RevisionSpec, default_autoscaling
from deployments.domain.workload import Batching
from deployments.models import Target
from deployments.telemetry.signals import SignalName

_FIELD_OF = {
    "minReplicas": "min_replicas",
    "maxReplicas": "max_replicas",
    "autoscaling": "max_replicas",
    "rate_per_s": "rate_per_s",
}


def take_refusal(form: forms.Form, error: SlipwayError) -> None:
    """Shows a service's refusal in the form: each message beside its field, the rest above the form."""
    placed = False
    for name, messages in error.fields.items():
        last = name.rpartition(".")[2].partition("[")[0]
        field = _FIELD_OF.get(last, last)
        if field in form.fields:
            placed = True
            for message in messages:
                form.add_error(field, _sentence(message))
    if not placed:
        form.add_error(None, f"{error.title} {error.detail}".strip())


def _sentence(message: str) -> str:
    return message[:1].upper() + message[1:] + ("" if message.endswith((".", "?", "!")) else ".")


def variant_key(variant: Variant) -> str:
    return f"{variant.version.model.name}/{variant.version.number}/{variant.number}"


def _variant_label(variant: Variant) -> str:
    verdict = word_of(variant.verdict).label.lower() if variant.verdict else ""
    return f"{variant.version} · {variant.label}" + (f" – {verdict}" if verdict else "")


class SpecForm(forms.Form):
    """The fields of a revision. `variants` are those that the reader may choose."""

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
    min_replicas = forms.IntegerField(label="Fewest replicas")
    max_replicas = forms.IntegerField(label="Most replicas")
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
    max_surge = forms.IntegerField(label="Surge", help_text="Replicas above the wanted number while moving.")
    max_unavailable = forms.IntegerField(
        label="Unavailable", help_text="Replicas that may be missing while moving. 0 never drops below."
    )
    progress_deadline_s = forms.IntegerField(
        label="Deadline", help_text="Without another ready replica for so long, it goes back by itself."
    )

    def __init__(self, *args: Any, variants: list[Variant], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._variants = {variant_key(one): one for one in variants}
        chosen = self.fields["variant"]
        assert isinstance(chosen, forms.ChoiceField)
        chosen.choices = [(key, _variant_label(one)) for key, one in self._variants.items()]
        software = self.fields["stack"]
        assert isinstance(software, forms.ChoiceField)
        software.choices = _stacks()

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
        given = self.cleaned_data
        batching = Batching.from_json({name: given[name] for name in _BATCHING})
        autoscaling = default_autoscaling(
            min_replicas=max(1, given["min_replicas"]),
            max_replicas=max(1, given["max_replicas"], given["min_replicas"]),
            batching=batching,
        )
        autoscaling |= {"minReplicas": given["min_replicas"], "maxReplicas": given["max_replicas"]}
        targets = {
            SignalName.QUEUE_DEPTH: given["queue_depth_target"],
            SignalName.IN_FLIGHT: given["in_flight_target"],
        }
        for metric in autoscaling["metrics"]:
            wanted = targets[metric["external"]["metric"]["name"]]
            if wanted is not None:
                metric["external"]["target"]["averageValue"] = _amount(wanted)
        return {
            "stack": given["stack"] or DEFAULT_STACK,
            "threads": given["threads"],
            "batching": batching.to_json(),
            "autoscaling": autoscaling,
            "rollout": {name: given[name] for name in _ROLLOUT},
        }

    def spec(self) -> RevisionSpec:
        """Raises InvalidInput that names the fields."""
        return specs.read_spec(self.document())


def _stacks() -> list[tuple[str, str]]:
    """Those first that run on any target."""
    found = sorted(map(stacks.load, stacks.TABLE), key=lambda stack: not stack.runs_here)
    return [
        (one.key, one.label if one.runs_here else f"{one.label}, on a Kubernetes cluster only")
        for one in found
    ]


def _amount(value: Decimal) -> str:
    """As a Kubernetes quantity: whole, or in thousandths."""
    return f"{int(value)}" if value == int(value) else f"{round(value * 1000)}m"


_BATCHING = ("max_batch_size", "preferred_batch_size", "max_queue_delay_microseconds", "max_queue_size")
_ROLLOUT = ("max_surge", "max_unavailable", "progress_deadline_s")


def initial_of(spec: RevisionSpec) -> dict[str, Any]:
    """The form's values for a spec, so that a new revision begins as the live one."""
    hpa = spec.hpa()
    targets = {metric.name: metric.target.words().replace(",", "") for metric in hpa.metrics}
    batching, rollout = spec.batching.to_json(), spec.rollout.to_json()
    return {
        **{name: batching[name] for name in _BATCHING},
        **{name: rollout[name] for name in _ROLLOUT},
        "stack": spec.stack,
        "preferred_batch_size": ", ".join(str(size) for size in spec.batching.preferred_batch_size),
        "threads": spec.threads,
        "min_replicas": hpa.min_replicas,
        "max_replicas": hpa.max_replicas,
        "queue_depth_target": targets.get(SignalName.QUEUE_DEPTH, "10"),
        "in_flight_target": targets.get(SignalName.IN_FLIGHT, ""),
    }


def defaults() -> Mapping[str, Any]:
    found = initial_of(specs.read_spec({}))
    return found | {"in_flight_target": ""}


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
