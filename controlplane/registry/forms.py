"""The registry's forms. They check shape only; what is allowed is the verb's to say."""

from typing import Any

from django import forms
from django.conf import settings
from django.core.files.uploadedfile import UploadedFile

from controlplane.accounts.access import Actor
from controlplane.core import formats
from controlplane.core.errors import SlipwayError
from controlplane.core.forms import VerbForm
from controlplane.registry import imports, metrics, selectors, services
from controlplane.registry.answers import POOLINGS, TASKS, Answers
from controlplane.registry.gate import MAX_OVERRIDE, MOST_MIB, MOST_MS, POINTS, SPEEDUPS, Gate
from controlplane.registry.models import Alias, Dataset, Import, Model, Variant, Verdict, Version
from controlplane.registry.services import MAX_DESCRIPTION
from controlplane.registry.sources import MAX_REFERENCE

CHUNK_BYTES = 1024**2
NAME_HELP = "Lower-case letters, digits and inner dashes, such as “fraud-scorer”."


def _limit() -> str:
    return f"Up to {formats.size(settings.ENVIRONMENT.max_upload_bytes)}."


def _name_field(label: str = "Name", **more: Any) -> forms.CharField:
    attributes = {"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"}
    return forms.CharField(
        label=label, max_length=200, strip=False, widget=forms.TextInput(attrs=attributes), **more
    )


class FileForm(VerbForm):
    """A form with a file: what is refused about the bytes stands beside the file."""

    file = forms.FileField(label="Model file", allow_empty_file=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        widget = self.fields["file"].widget
        widget.attrs["data-limit"] = str(settings.ENVIRONMENT.max_upload_bytes)
        self.fields["file"].help_text = f"{self.kind} {_limit()}"

    kind = (
        "An ONNX file; a PyTorch program (.pt2 of torch.export.save); a scikit-learn model (.skops of skops.io.dump); "
        "or a zip archive of an ONNX file with its external data, or of a transformers folder (config.json and "
        "model.safetensors). Where the operator allows it, a zip archive of TorchScript with its signature.json."
    )

    def refuse(self, error: SlipwayError) -> None:
        """Without a field of its own, and about content or size, it is about the file."""
        if not error.fields and error.status in {400, 409, 413, 422, 507}:
            self.status = error.status
            self.add_error("file", f"{error.title} {error.detail}".strip())
            return
        super().refuse(error)

    def chunks(self) -> Any:
        file: UploadedFile[Any] = self.cleaned_data["file"]
        return file.chunks(CHUNK_BYTES)

    @property
    def filename(self) -> str:
        return str(self.cleaned_data["file"].name or "")


class NewModelFields(forms.Form):
    name = _name_field(help_text=f"{NAME_HELP} It becomes part of addresses and cannot be changed.")
    description = forms.CharField(
        required=False,
        max_length=MAX_DESCRIPTION,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="What it decides, on which inputs, and who to ask.",
    )


class NewModelForm(NewModelFields, FileForm):
    file = forms.FileField(label="First version", allow_empty_file=True)
    field_order = ("name", "description", "file")

    def create(self, actor: Actor) -> Version | None:
        return self.attempt(
            lambda: services.register_with_version(
                actor,
                name=self.cleaned_data["name"],
                description=self.cleaned_data["description"],
                chunks=self.chunks(),
                filename=self.filename,
            )
        )


class UploadForm(FileForm):
    def upload(self, actor: Actor, model: Model) -> tuple[Version, bool] | None:
        return self.attempt(
            lambda: services.upload_version(actor, model, chunks=self.chunks(), filename=self.filename)
        )


def _metrics() -> list[tuple[str, str]]:
    rows = ((row.key, f"{row.label}: {row.expects}") for row in metrics.every())
    return [("", "What its labels look like: class numbers are scored by top-1 accuracy"), *rows]


class ImportForm(VerbForm):
    reference = forms.CharField(
        max_length=MAX_REFERENCE,
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"}
        ),
        help_text="“hf:organization/name@revision” on Hugging Face, or “models:/name/version” (or “name@alias”) in "
        "MLflow; then, if it has several models, the path of one, as in “hf:acme/churn@main/onnx/model.onnx”. A branch "
        "is pinned to its commit. Fetched are an ONNX file with its external data, or config.json with "
        "model.safetensors, and nothing else.",
    )

    def start(self, actor: Actor, model: Model) -> Import | None:
        made = self.attempt(lambda: imports.start(actor, model, reference=self.cleaned_data["reference"]))
        return made[0] if made else None


class ImportModelForm(NewModelFields, ImportForm):
    field_order = ("name", "description", "reference")

    def create(self, actor: Actor) -> Import | None:
        return self.attempt(lambda: imports.start_with_model(actor, **self.cleaned_data))


class DatasetForm(FileForm):
    kind = (
        "An npz archive, a Parquet or a CSV file: one array or column per input, named as in the signature, and "
        "optional “labels”."
    )
    name = _name_field(help_text=NAME_HELP)
    role = forms.ChoiceField(
        choices=Dataset.Role.choices,
        widget=forms.RadioSelect,
        initial=Dataset.Role.EVALUATION,
        label="Use it as",
        help_text="Evaluation sets measure what a variant costs in answers; static INT8 learns its ranges "
        "from calibration sets.",
    )
    metric = forms.ChoiceField(
        required=False,
        choices=_metrics,
        label="Score answers by",
        help_text="A report says what a variant loses in it. Without labels only agreement with the parent is said, "
        "as the model's task has it.",
    )
    file = forms.FileField(label="Data file", allow_empty_file=True)
    field_order = ("name", "role", "metric", "file")

    def add(self, actor: Actor, model: Model) -> Dataset | None:
        return self.attempt(
            lambda: services.add_dataset(
                actor,
                model,
                name=self.cleaned_data["name"],
                role=self.cleaned_data["role"],
                metric=self.cleaned_data["metric"],
                version=selectors.latest_version(actor, model),
                chunks=self.chunks(),
            )
        )


class DescriptionForm(VerbForm):
    description = forms.CharField(
        required=False, max_length=MAX_DESCRIPTION, widget=forms.Textarea(attrs={"rows": 5})
    )

    def save(self, actor: Actor, model: Model) -> Model | None:
        return self.attempt(
            lambda: services.describe_model(actor, model, description=self.cleaned_data["description"])
        )


class AnswersForm(VerbForm):
    task = forms.ChoiceField(
        required=False,
        choices=[("", "As the signature suggests"), *TASKS.items()],
        help_text="Without labels, agreement with the parent is measured by its means. Labels beat it.",
    )
    output = forms.ChoiceField(
        required=False,
        label="Output that counts",
        help_text="Labels are scored on it where they fit it.",
    )
    pooling = forms.ChoiceField(
        required=False,
        choices=[("", "As the signature suggests"), *POOLINGS.items()],
        help_text="For outputs with a row for each position, such as the tokens of a text. Positions that an attention "
        "mask among the inputs leaves out never count.",
    )

    def __init__(self, version: Version, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.version = version
        names = [port["name"] for port in version.signature["outputs"]]
        field = self.fields["output"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [("", "As the task and the labels have it"), *((name, name) for name in names)]

    def save(self, actor: Actor, model: Model) -> Model | None:
        return self.attempt(
            lambda: services.set_answers(actor, model, Answers(**self.cleaned_data), version=self.version)
        )


class GateForm(VerbForm):
    min_speedup = forms.FloatField(
        min_value=SPEEDUPS[0],
        max_value=SPEEDUPS[1],
        label="Least speed-up",
        help_text="Times as fast as its parent; 1.05 is 5 % faster. Gains count only beyond the machine's noise.",
    )
    max_loss_points = forms.FloatField(
        min_value=POINTS[0],
        max_value=POINTS[1],
        label="Most accuracy lost, points",
        help_text="At the upper end of the interval. Without labels: what agreement with the parent loses, such as the "
        "share of items that disagree, in percent.",
    )
    max_relative_loss_percent = forms.FloatField(
        required=False,
        min_value=POINTS[0],
        max_value=POINTS[1],
        label="Most accuracy lost, percent of the parent's",
        help_text="Empty asks nothing.",
    )
    max_size_mib = forms.FloatField(
        required=False,
        min_value=0,
        max_value=MOST_MIB,
        label="Largest file, MiB",
        help_text="Empty asks nothing.",
    )
    max_latency_ms = forms.FloatField(
        required=False,
        min_value=0,
        max_value=MOST_MS,
        label="Longest time for one item, ms",
        help_text="The median on the machine that measured. Empty asks nothing.",
    )

    def save(self, actor: Actor, model: Model) -> Model | None:
        return self.attempt(lambda: services.set_gate(actor, model, Gate(**self.cleaned_data)))


def variant_label(row: Variant) -> str:
    """Such as `version 3, original` or `version 3, int8-static (better)`."""
    verdict = f" ({row.get_verdict_display().lower()})" if row.verdict else ""
    return f"version {row.version.number}, {row.label}{verdict}"


class AliasForm(VerbForm):
    name = _name_field("Alias", help_text="Such as “champion”. An alias of this name is moved.")
    variant = forms.ModelChoiceField(
        queryset=Variant.objects.none(), label="Points to", empty_label=None, required=True
    )
    override = forms.CharField(
        required=False,
        max_length=MAX_OVERRIDE,
        label="Why, against the gate",
        help_text="Only for a variant that has not passed the gate. Kept in the activity.",
    )

    def __init__(self, model: Model, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model = model
        field = self.fields["variant"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = selectors.servable(model)
        field.label_from_instance = variant_label  # type: ignore[method-assign, assignment]

    def move(self, actor: Actor) -> Alias | None:
        return self.attempt(
            lambda: services.move_alias(
                actor,
                self.model,
                name=self.cleaned_data["name"],
                variant=self.cleaned_data["variant"],
                override=self.cleaned_data["override"],
            )
        )


class ConfirmForm(VerbForm):
    """For what must not happen by a slip: the name has to be typed. The page's script only unlocks the button."""

    undone = "nothing was changed"
    confirm = forms.CharField(label="Name", max_length=200)

    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = name

    def clean_confirm(self) -> str:
        typed: str = self.cleaned_data["confirm"]
        if typed != self.name:
            raise forms.ValidationError(f"Type “{self.name}” to confirm; {self.undone}.")
        return typed


class DeleteForm(ConfirmForm):
    undone = "nothing was deleted"


class ModelFilterForm(forms.Form):
    """A filter that makes no sense filters nothing out: an address that is shared must always open."""

    search = forms.CharField(
        label="Name or description",
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "Name or description"}),
    )
    verdict = forms.ChoiceField(
        label="Verdict of a variant", required=False, choices=[("", "Any verdict"), *Verdict.choices]
    )
    alias = forms.CharField(
        label="Alias",
        required=False,
        max_length=63,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "Alias"}),
    )

    def wanted(self) -> dict[str, str]:
        self.is_valid()
        given = self.cleaned_data
        return {
            "text": given.get("search", "").strip(),
            "verdict": given.get("verdict", ""),
            "alias_part": given.get("alias", "").strip(),
        }
