"""The forms of targets. They check shape only; what is allowed is the verb's to say.

What was pasted is never shown again: a form that has to be sent once more carries it sealed (`clusters.keep`).
"""

from contextlib import suppress
from typing import Any

from django import forms
from django.conf import settings

from controlplane.accounts.access import Actor
from controlplane.core.errors import InvalidInput, SlipwayError
from controlplane.core.forms import VerbForm
from deployments import clusters
from deployments.clusters import ClusterPlace
from deployments.models import Target
from deployments.targets.kubernetes import kubeconfig
from deployments.targets.kubernetes.metrics_install import Installation, MetricsApi
from deployments.targets.kubernetes.render.place import FETCH_IMAGE

_PLAIN = {"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"}


class SecretTextarea(forms.Textarea):
    """Takes a text and shows none."""

    def format_value(self, value: Any) -> str | None:
        return None


def _text(label: str, help_text: str, *, most: int = 253, required: bool = False) -> forms.CharField:
    return forms.CharField(
        label=label,
        max_length=most,
        required=required,
        help_text=help_text,
        widget=forms.TextInput(attrs=_PLAIN),
    )


class KubeconfigForm(VerbForm):
    """A kubeconfig and one of its contexts, which is asked for once there are several."""

    kubeconfig = forms.CharField(
        label="Kubeconfig",
        required=False,
        strip=False,
        widget=SecretTextarea(attrs=_PLAIN | {"class": "code", "rows": 8}),
        help_text="Of a service account for Slipway, with its token or certificate inside. It is stored sealed and "
        "never shown again; programs and files that it names are refused.",
    )
    kept = forms.CharField(required=False, widget=forms.HiddenInput)
    context = forms.ChoiceField(label="Context", required=False)

    def __init__(self, *args: Any, actor: Actor, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.actor = actor
        self.text = ""
        if self.is_bound:
            pasted = str(self.data.get("kubeconfig", ""))
            self.text = pasted if pasted.strip() else clusters.kept(actor, str(self.data.get("kept", "")))
        self.contexts: tuple[str, ...] = ()
        with suppress(InvalidInput):
            self.contexts = kubeconfig.contexts(self.text) if self.text else ()
        chosen = self.fields["context"]
        assert isinstance(chosen, forms.ChoiceField)
        several = len(self.contexts) > 1
        chosen.choices = [("", "Choose one" if several else "The current one")] + [
            (name, name) for name in self.contexts
        ]
        if not several:
            chosen.widget = forms.HiddenInput()

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or {}
        if len(self.contexts) > 1 and not given.get("context") and "context" not in self.errors:
            self.add_error(
                "context", f"The kubeconfig has {len(self.contexts)} contexts: choose one of them."
            )
        return given

    def hold(self) -> None:
        """So that what was pasted need not be pasted again."""
        if self.is_bound and self.contexts:
            self.fields[
                "kubeconfig"
            ].help_text = (
                "What you pasted is kept for a quarter of an hour. Leave this empty, or paste another one."
            )
            self.data = {**self.data.dict(), "kept": clusters.keep(self.actor, self.text)}  # type: ignore[attr-defined]


class PlaceFields(forms.Form):
    """The fields of `ClusterPlace`."""

    namespace = _text(
        "Namespace", "One that this team alone uses; Slipway does not make it.", most=63, required=True
    )
    fetch_url = _text(
        "Slipway's address for pods",
        "Where pods of the cluster reach Slipway to fetch variants, such as https://slipway.example.com.",
        most=500,
    )
    fetch_ca = forms.CharField(
        label="Its certificate authority",
        required=False,
        max_length=100_000,
        widget=forms.Textarea(attrs=_PLAIN | {"class": "code", "rows": 4}),
        help_text="PEM of what signed the certificate of that address, where pods do not know it. No private key.",
    )
    fetch_image = _text(
        "Image of the fetcher",
        f"Runs before each replica and fetches its variant. Empty: {FETCH_IMAGE}, if your nodes can pull it.",
        most=512,
    )
    slipway_namespace = _text(
        "Slipway's own namespace",
        "Where Slipway runs in this cluster, so that network policies let it measure; empty where it runs elsewhere.",
        most=63,
    )
    scrape = forms.ChoiceField(
        label="Measured",
        required=False,
        choices=[
            ("", "As fits where Slipway runs"),
            ("pods", "At its pods, every 2 s"),
            ("proxy", "Through the API server, every 5 s"),
        ],
        help_text="What fits: at its pods where Slipway runs in this cluster, through its API server elsewhere. At its "
        "pods needs a network to them, and loads nobody else.",
    )
    metrics_url = _text(
        "Address of the metrics API for KEDA", "Only where KEDA scales: where it asks Slipway.", most=500
    )
    keda_secret = _text(
        "Secret for KEDA", "Only where KEDA scales: a Secret of the namespace whose key “token” it shows."
    )

    def said(self) -> dict[str, str]:
        given = {name: str(self.cleaned_data[name]) for name in PlaceFields.base_fields}
        return given | {"fetch_image": given["fetch_image"] or FETCH_IMAGE}


class NewClusterForm(KubeconfigForm, PlaceFields):
    name = _text(
        "Name", "Lower-case letters, digits and inner dashes, such as “west-gpus”.", most=200, required=True
    )
    in_cluster = forms.BooleanField(
        label="Use Slipway's own account",
        required=False,
        help_text="For the cluster that Slipway runs in; then no kubeconfig is needed.",
    )
    field_order = ("name", "in_cluster", "kubeconfig", "kept", "context")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not settings.ENVIRONMENT.in_cluster:
            del self.fields["in_cluster"]

    def create(self) -> Target | None:
        return self.attempt(
            lambda: clusters.add_cluster(
                self.actor,
                name=self.cleaned_data["name"],
                place=ClusterPlace(**self.said()),
                kubeconfig_text=self.text,
                context=self.cleaned_data["context"],
                in_cluster=self.cleaned_data.get("in_cluster", False),
            )
        )


class PlaceForm(VerbForm, PlaceFields):
    def save(self, actor: Actor, target: Target) -> Target | None:
        return self.attempt(lambda: clusters.change_cluster(actor, target, changes=self.said()))


class ReplaceKubeconfigForm(KubeconfigForm):
    def save(self, target: Target) -> Target | None:
        return self.attempt(
            lambda: clusters.change_cluster(
                self.actor, target, changes={}, kubeconfig_text=self._given(), context=self._context()
            )
        )

    def _given(self) -> str:
        if not self.text.strip():
            sentence = "Paste the kubeconfig of an account for Slipway."
            raise InvalidInput(
                "invalid_kubeconfig", "Nothing was pasted.", sentence, fields={"kubeconfig": [sentence]}
            )
        return self.text

    def _context(self) -> str:
        return str(self.cleaned_data["context"])


class MetricsApiForm(VerbForm):
    namespace = _text(
        "Namespace of the Service",
        "Where Slipway runs in this cluster; elsewhere any that may have a Service.",
        most=63,
        required=True,
    )
    outside = _text(
        "Address of the process, where it runs elsewhere",
        "HOST:PORT of SLIPWAY_METRICS_ADDRESS as the cluster's API server reaches it. Empty: the chart's pods.",
    )
    ca_pem = forms.CharField(
        label="Certificate authority",
        max_length=100_000,
        widget=forms.Textarea(attrs=_PLAIN | {"class": "code", "rows": 6}),
        help_text="PEM of what signed the process's certificate (SLIPWAY_METRICS_CERT). No private key.",
    )

    def wanted(self) -> MetricsApi:
        return MetricsApi(**{name: self.cleaned_data[name] for name in ("namespace", "outside", "ca_pem")})

    def plan(self, target: Target) -> Installation | None:
        return self.attempt(lambda: clusters.plan_metrics_api(target, self.wanted()))

    def install(self, actor: Actor, target: Target, *, etag: str) -> Installation | None:
        return self.attempt(lambda: clusters.install_metrics_api(actor, target, self.wanted(), etag=etag))

    refusal: SlipwayError | None = None
    """What is about no field: the page says it above the form, with what to do."""

    def refuse(self, error: SlipwayError) -> None:
        if error.fields:
            super().refuse(error)
        else:
            self.status, self.refusal = error.status, error
