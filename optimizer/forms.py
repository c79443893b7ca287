"""The forms of jobs and searches. A technique's fields are made from the schema of its parameters, never by hand."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.forms import BoundField

from controlplane.accounts.access import Actor
from controlplane.core.errors import SlipwayError
from controlplane.core.forms import VerbForm
from controlplane.registry.models import Dataset, Variant
from controlplane.registry.reports import promise_in_words
from optimizer import fleet, searches, services
from optimizer.domain.recipe import Recipe, Step
from optimizer.models import Job, Search
from optimizer.queues import ANY_GPU
from optimizer.techniques import TECHNIQUES, refusals
from optimizer.techniques.port import CALIBRATION_MISSING, ModelSummary, Refusal, Technique


class Lines(forms.CharField):
    """A list of texts, one in a line."""

    widget = forms.Textarea(attrs={"rows": 3, "class": "code", "spellcheck": "false"})

    def clean(self, value: Any) -> Any:
        return [line.strip() for line in super().clean(value).splitlines() if line.strip()]


class Json(forms.CharField):
    """What no other control fits, as JSON."""

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        try:
            return json.loads(text) if text else None
        except ValueError as error:
            raise forms.ValidationError("Write this as JSON.") from error


def field_of(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> forms.Field:
    """The control for one property of a JSON schema. Optional: what is left empty keeps its default."""
    schema = _resolved(schema, definitions)
    common: dict[str, Any] = {
        "required": False,
        "label": schema.get("title"),
        "help_text": schema.get("description", ""),
        "initial": schema.get("default"),
    }
    bounds: dict[str, Any] = {"min_value": schema.get("minimum"), "max_value": schema.get("maximum")}
    if "enum" in schema:
        return forms.ChoiceField(choices=[(value, _word(value)) for value in schema["enum"]], **common)
    match schema.get("type"):
        case "boolean":
            return forms.BooleanField(**common)
        case "integer":
            return forms.IntegerField(**bounds, **common)
        case "number":
            step = forms.NumberInput(attrs={"step": "any"})
            return forms.FloatField(widget=step, **bounds, **common)
        case "string":
            return forms.CharField(max_length=schema.get("maxLength"), **common)
        case "array":
            return _list_field(_resolved(schema.get("items", {}), definitions), common)
    return Json(**common | {"initial": json.dumps(common["initial"])})


def _list_field(items: Mapping[str, Any], common: dict[str, Any]) -> forms.Field:
    if "enum" in items:
        return forms.MultipleChoiceField(
            choices=[(value, value) for value in items["enum"]], widget=forms.CheckboxSelectMultiple, **common
        )
    return Lines(**common | {"initial": "\n".join(common["initial"] or ())})


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    return {
        **definitions[str(reference).rpartition("/")[2]],
        **{k: v for k, v in schema.items() if k != "$ref"},
    }


NAMES = {
    "onnxruntime": "ONNX Runtime",
    "onnxslim": "onnxslim",
    "minmax": "Least and most",
    "rtx": "TensorRT for RTX",
    "tensorrt": "TensorRT",
    "ampere_plus": "Ampere and later",
} | {name: name.upper() for name in ("nncf", "int8", "bf16", "fp32", "mlp", "cnn")}
"""Choices that are names, or short for one."""


def _word(value: object) -> str:
    return NAMES.get(str(value), str(value).replace("_", " ").capitalize())


@dataclass(frozen=True, kw_only=True)
class Card:
    """One technique to choose: what is promised, why it cannot be used, and its parameters."""

    technique: Technique
    promise: Mapping[str, Any]
    refusals: tuple[Refusal, ...]
    chosen: bool
    fields: list[BoundField]

    @property
    def usable(self) -> bool:
        """Missing data can be chosen in the same form."""
        return all(reason == CALIBRATION_MISSING for reason in self.refusals)


class DataForm(VerbForm):
    """Which data sets of the model to use; what there is, is chosen."""

    evaluation_set = forms.ModelChoiceField(
        queryset=Dataset.objects.none(),
        required=False,
        empty_label="None: random inputs",
        label="Compare answers on",
        help_text="With labels the report says what is lost in accuracy; random inputs only show agreement.",
    )
    calibration_set = forms.ModelChoiceField(
        queryset=Dataset.objects.none(),
        required=False,
        empty_label="Items of the evaluation set",
        label="Calibrate with",
        help_text="Only for techniques that learn from data: ranges, or all that a student knows.",
    )

    def __init__(self, parent: Variant, datasets: Iterable[Dataset], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parent = parent
        self._offer(list(datasets))

    def _offer(self, datasets: list[Dataset]) -> None:
        self.datasets = datasets
        for name in ("evaluation_set", "calibration_set"):
            field = self.fields[name]
            assert isinstance(field, forms.ModelChoiceField)
            field.queryset = Dataset.objects.filter(pk__in=[row.pk for row in datasets])
            field.label_from_instance = dataset_label  # type: ignore[method-assign, assignment]
        measured = [row for row in datasets if row.role == Dataset.Role.EVALUATION]
        learned = [row for row in datasets if row.role == Dataset.Role.CALIBRATION]
        self.initial.setdefault("evaluation_set", measured[0].pk if measured else None)
        self.initial.setdefault("calibration_set", learned[0].pk if learned else None)

    def _offer_gpus(self, others: list[tuple[str, str]]) -> None:
        """Beside the `others`. Where no worker has one there is nothing to choose."""
        classes = fleet.gpu_classes()
        if not classes:
            del self.fields["gpu"]
            return
        field = self.fields["gpu"]
        assert isinstance(field, forms.ChoiceField)
        named = [(key, f"A GPU of compute capability {key} ({', '.join(names)})") for key, names in classes]
        field.choices = [*others, *named]


class OptimizeForm(DataForm):
    technique = forms.ChoiceField()
    priority = forms.TypedChoiceField(
        choices=Job.Priority.choices,
        coerce=int,
        initial=Job.Priority.NORMAL,
        required=False,
        label="Priority",
        help_text="Among jobs that wait. What waits for long rises by itself.",
    )
    gpu = forms.ChoiceField(required=False, label="Run on", help_text="What is measured there holds there.")

    def __init__(self, parent: Variant, datasets: Iterable[Dataset], *args: Any, **kwargs: Any) -> None:
        super().__init__(parent, datasets, *args, **kwargs)
        self._offer_gpus([("", "What the technique needs"), (ANY_GPU, "Any GPU")])
        self.techniques = [TECHNIQUES.load(key) for key in TECHNIQUES]
        self.names = {used.key: self._add_parameters(used) for used in self.techniques}
        choice = self.fields["technique"]
        assert isinstance(choice, forms.ChoiceField)
        choice.choices = [(used.key, used.label) for used in self.techniques]
        usable = {
            card.technique.key: card.technique.needs(card.technique.parameters(), format=parent.format)
            for card in self.cards()
            if card.usable
        }
        if self.initial.get("technique") not in usable:
            own = [key for key, toolchain in usable.items() if toolchain is None]
            self.initial["technique"] = [None, *usable, *own][-1]

    def _add_parameters(self, used: Technique) -> dict[str, str]:
        """Form name by parameter name."""
        schema = used.parameters.model_json_schema()
        names = {}
        for name, described in schema.get("properties", {}).items():
            names[name] = f"{used.key}.{name}"
            self.fields[names[name]] = field_of(described, schema.get("$defs", {}))
        return names

    def cards(self) -> list[Card]:
        summary = ModelSummary.from_json(
            self.parent.version.summary | {"precision": self.parent.precision, "format": self.parent.format}
        )
        chosen = self["technique"].value() if self.is_bound else self.initial.get("technique")
        return [
            Card(
                technique=used,
                promise=promise_in_words({"label": used.label, **used.promises.to_json()}),
                refusals=refusals(used, self.parent.signature, summary, has_calibration=bool(self.datasets)),
                chosen=used.key == chosen,
                fields=[self[name] for name in self.names[used.key].values()],
            )
            for used in self.techniques
        ]

    def _recipe(self) -> Recipe:
        key = self.cleaned_data["technique"]
        given = {name: self.cleaned_data.get(field) for name, field in self.names[key].items()}
        params = {name: value for name, value in given.items() if value not in (None, "")}
        return Recipe(steps=(Step(technique=key, params=params),))

    def start(self, actor: Actor) -> Job | None:
        made = self.attempt(
            lambda: services.optimize(
                actor,
                self.parent,
                recipe=self._recipe(),
                evaluation_set=self.cleaned_data["evaluation_set"],
                calibration_set=self.cleaned_data["calibration_set"],
                priority=self.cleaned_data["priority"] or Job.Priority.NORMAL,
                gpu=self.cleaned_data.get("gpu", ""),
            )
        )
        return made[0] if made is not None else None

    def refuse(self, error: SlipwayError) -> None:
        """A parameter's error stands beside its field."""
        key = self.cleaned_data.get("technique", "")
        error.fields = {
            name.replace("params.", f"{key}.", 1): messages for name, messages in error.fields.items()
        }
        super().refuse(error)


class SearchForm(DataForm):
    gpu = forms.ChoiceField(
        required=False,
        label="Measure on",
        help_text="On a GPU, TensorRT's engines are tried in each precision; else what runs on processors.",
    )
    max_jobs = forms.IntegerField(
        min_value=1,
        max_value=searches.MAX_JOBS,
        initial=12,
        label="At most so many jobs",
        help_text="Each recipe is built and measured by a job of its own, one after another.",
    )
    max_minutes = forms.IntegerField(
        min_value=1,
        max_value=searches.MAX_MINUTES,
        initial=60,
        label="At most so many minutes",
        help_text="After that no job is begun; the one that runs is measured to its end.",
    )

    def __init__(self, parent: Variant, datasets: Iterable[Dataset], *args: Any, **kwargs: Any) -> None:
        super().__init__(parent, datasets, *args, **kwargs)
        self._offer_gpus([("", "The processors of the workers")])

    def start(self, actor: Actor) -> Search | None:
        made = self.attempt(lambda: searches.start(actor, self.parent, **self.cleaned_data))
        return made[0] if made is not None else None


def dataset_label(row: Dataset) -> str:
    labels = "labelled" if row.has_labels else "no labels"
    return f"{row.name} ({row.items:,} items, {labels})"


class JobFilterForm(forms.Form):
    """A filter that makes no sense filters nothing out: an address that is shared must always open."""

    model = forms.CharField(
        label="Model",
        required=False,
        max_length=63,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "Model"}),
    )
    state = forms.ChoiceField(
        label="State",
        required=False,
        choices=[("", "Any state"), ("active", "Not over"), *Job.State.choices],
    )

    def wanted(self) -> dict[str, str]:
        """`model` filters while it is typed, so it is a part of a name."""
        self.is_valid()
        given = self.cleaned_data
        return {"state": given.get("state", ""), "named": given.get("model", "").strip()}
