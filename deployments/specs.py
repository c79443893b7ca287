"""The spec of a revision as somebody wrote it: read with its defaults, and refused where it could never run."""

from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from controlplane.core.errors import Conflict, InvalidInput, Unprocessable
from controlplane.registry import formats
from controlplane.registry.models import Variant
from deployments import stacks
from deployments.domain.cluster import ClusterSettings
from deployments.domain.hpa import InvalidHpa
from deployments.domain.spec import RevisionSpec, default_autoscaling
from deployments.domain.workload import MAX_REPLICAS, Batching
from deployments.models import Deployment, Target
from deployments.telemetry.signals import SignalName
from deployments.wishes import workload_of

MEASURED = (SignalName.QUEUE_DEPTH, SignalName.IN_FLIGHT)
"""What an autoscaling spec can scale by."""


@dataclass(frozen=True, kw_only=True)
class Usual:
    """What depends on where it runs: how many replicas, and how long one may take to become ready."""

    min_replicas: int
    max_replicas: int
    progress_deadline_s: int


ON_A_CLUSTER = Usual(min_replicas=2, max_replicas=20, progress_deadline_s=600)
"""A node may have to be added and an image pulled, which takes minutes."""
ON_A_MACHINE = Usual(min_replicas=1, max_replicas=4, progress_deadline_s=60)


def usual(target: Target | None) -> Usual:
    return ON_A_CLUSTER if target is not None and target.is_cluster else ON_A_MACHINE


def read_spec(document: object, target: Target | None = None) -> RevisionSpec:
    """The spec that a person or a program wrote for `target`; what it leaves out gets the target's default.

    Raises InvalidInput that names the field.
    """
    if not isinstance(document, dict):
        raise InvalidInput("invalid_spec", "The spec cannot be used.", "It must be a JSON object.")
    try:
        return RevisionSpec.from_json(_filled(document, usual(target)))
    except InvalidInput as error:
        raise _of_spec(error) from error


def _filled(document: dict[str, Any], usual: Usual) -> dict[str, Any]:
    batching = Batching.from_json(document.get("batching", {}))
    autoscaling, rollout = document.get("autoscaling"), document.get("rollout", {})
    if autoscaling is None:
        autoscaling = default_autoscaling(
            min_replicas=usual.min_replicas, max_replicas=usual.max_replicas, batching=batching
        )
    if isinstance(rollout, dict):
        rollout = {"progress_deadline_s": usual.progress_deadline_s} | rollout
    return document | {"autoscaling": autoscaling, "rollout": rollout}


def _of_spec(error: InvalidInput) -> InvalidInput:
    """The same refusal with the fields as the writer of the spec names them."""
    fields = {_field_of_spec(name): messages for name, messages in error.fields.items()}
    named = "; ".join(f"{name} {', '.join(messages)}" for name, messages in fields.items())
    return InvalidInput(
        "invalid_spec", "The spec cannot be used.", f"{named or error.detail}.", fields=fields
    )


def _field_of_spec(path: str) -> str:
    """“Batching.max_batch_size” and “RevisionSpec.threads” are names of ours; “spec.threads” is the writer's."""
    path = path.removeprefix("RevisionSpec.").replace("Batching.", "batching.", 1)
    return "spec" if path in {"RevisionSpec", "Batching"} else f"spec.{path}"


def on_target(spec: RevisionSpec, target: Target, variant: Variant) -> RevisionSpec:
    """With what a cluster is told filled in: an engine asks for the GPU without which it cannot be loaded. Raises
    Unprocessable for settings of a cluster on another kind of target."""
    if not target.is_cluster:
        if spec.cluster is not None:
            raise Unprocessable(
                "no_cluster",
                f"“{target.name}” is no cluster.",
                "Leave `cluster` out, or choose a target that is one.",
                fields={"spec.cluster": ["Only for a target that is a cluster."]},
            )
        return spec
    settings = spec.cluster or ClusterSettings()
    if needs_gpu(spec.stack, variant) and not settings.resources.gpus:
        settings = replace(settings, resources=replace(settings.resources, gpus=1))
    return replace(spec, cluster=settings)


def needs_gpu(stack: str, variant: Variant) -> bool:
    return stack in stacks.TABLE and variant.format in stacks.load(stack).gpu_formats


def refuse_unusable(deployment: Deployment, variant: Variant, spec: RevisionSpec) -> None:
    if variant.version.model.team_id != deployment.team_id:
        raise Unprocessable("foreign_variant", "The variant belongs to another team.")
    if spec.stack not in stacks.TABLE:
        known = ", ".join(stacks.TABLE)
        raise Unprocessable("unknown_stack", f"There is no stack “{spec.stack}”.", f"Known stacks: {known}.")
    if variant.format not in stacks.load(spec.stack).formats:
        raise _not_served(variant, spec.stack)
    if variant.version.quarantined_reason:
        raise Conflict(
            "quarantined", f"{variant.version} is quarantined.", variant.version.quarantined_reason
        )
    _refuse_parameters(spec)
    _refuse_autoscaling(spec)
    try:
        workload_of(variant, spec, revision=1, replicas=1, path="/", api_key_sha256="")
    except InvalidInput as error:
        raise _of_spec(error) from error


def _not_served(variant: Variant, stack: str) -> Unprocessable:
    """An engine, for one, needs a stack that runs on GPUs."""
    others = [able.key for able in stacks.serving(variant.format)]
    todo = f"Choose the stack {' or '.join(others)}. {variant.served_elsewhere}".rstrip()
    return Unprocessable(
        "format_not_served",
        f"The stack {stack} does not serve the format {formats.label(variant.format)}.",
        variant.not_served or todo,
        fields={"spec.stack": [todo]} if others else {},
    )


def _refuse_parameters(spec: RevisionSpec) -> None:
    """What the stack's own schema refuses, a replica would refuse when it starts."""
    try:
        stacks.load(spec.stack).parameters.model_validate(spec.batching.to_json() | {"threads": spec.threads})
    except ValidationError as error:
        fields: dict[str, list[str]] = {}
        for problem in error.errors(include_url=False, include_context=False):
            place = ".".join(str(part) for part in problem["loc"]) or "preferred_batch_size"
            name = f"spec.{place}" if place == "threads" else f"spec.batching.{place}"
            fields.setdefault(name, []).append(problem["msg"].removeprefix("Value error, "))
        told = "; ".join(f"{name}: {messages[0]}" for name, messages in fields.items())
        raise Unprocessable(
            "invalid_parameters",
            f"The stack {spec.stack} cannot run with these parameters.",
            f"{told}.",
            fields=fields,
        ) from error


def _refuse_autoscaling(spec: RevisionSpec) -> None:
    """What could be read, but would hold at one size for ever or be refused by every target."""
    try:
        hpa = spec.hpa()
    except InvalidHpa as error:
        raise _autoscaling("spec.autoscaling", str(error)) from error
    if hpa.max_replicas > MAX_REPLICAS:
        raise _autoscaling(
            "spec.autoscaling.maxReplicas",
            f"maxReplicas is {hpa.max_replicas:,}; a target runs at most {MAX_REPLICAS} replicas.",
        )
    if hpa.min_replicas < 1:
        raise _autoscaling(
            "spec.autoscaling.minReplicas",
            "minReplicas must be at least 1: without a replica nothing is measured that could ask for one.",
        )
    for metric in hpa.metrics:
        if metric.name not in MEASURED:
            raise _autoscaling(
                "spec.autoscaling.metrics",
                f"“{metric.name}” is not measured here; use {' or '.join(MEASURED)}.",
            )


def _autoscaling(field: str, sentence: str) -> Unprocessable:
    title = "The autoscaling spec cannot be used."
    return Unprocessable("invalid_autoscaling", title, sentence, fields={field: [sentence]})
