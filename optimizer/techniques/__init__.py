"""The techniques: one table, and what may be asked of a recipe before it runs.

Rows are listed by hand; other packages add theirs through the entry-point group `slipway.techniques`. A
technique is imported on first use, its vendor's packages only in a child process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from controlplane.core.errors import Unprocessable
from controlplane.core.plugins import Entry, PluginTable
from controlplane.registry.formats import EXPORT_FIRST, MUST_BE_EXPORTED, with_article
from optimizer.domain.recipe import Recipe, Step
from optimizer.queues import ANY_GPU, Needs
from optimizer.techniques.port import (
    CALIBRATION_MISSING,
    Device,
    Hardware,
    ModelSummary,
    Parameters,
    Refusal,
    Technique,
)
from optimizer.toolchains import CUDA, TOOLCHAINS
from optimizer.workbench.formats import FORMATS, compared_on_gpu, measured_on

TECHNIQUES: PluginTable[Technique] = PluginTable(
    group="slipway.techniques",
    entries=(
        Entry(
            key="onnx-export",
            label="ONNX export",
            path="optimizer.techniques.onnx_export.technique:TECHNIQUE",
        ),
        Entry(
            key="onnx-graph",
            label="Graph optimization",
            path="optimizer.techniques.onnx_graph.technique:TECHNIQUE",
        ),
        Entry(key="fp16", label="FP16", path="optimizer.techniques.fp16.technique:TECHNIQUE"),
        Entry(
            key="int8-dynamic",
            label="INT8, dynamic",
            path="optimizer.techniques.int8_dynamic.technique:TECHNIQUE",
        ),
        Entry(
            key="int8-static",
            label="INT8, static",
            path="optimizer.techniques.int8_static.technique:TECHNIQUE",
        ),
        Entry(key="openvino", label="OpenVINO", path="optimizer.techniques.openvino.technique:TECHNIQUE"),
        Entry(key="tensorrt", label="TensorRT", path="optimizer.techniques.tensorrt.technique:TECHNIQUE"),
        Entry(key="distill", label="Distillation", path="optimizer.techniques.distill.technique:TECHNIQUE"),
    ),
)


def technique(key: str) -> Technique:
    """Raises Unprocessable("unknown_technique") that lists those there are."""
    if key not in TECHNIQUES:
        raise Unprocessable(
            "unknown_technique",
            f"There is no technique “{key[:60]}”.",
            f"There are: {', '.join(TECHNIQUES)}.",
        )
    return TECHNIQUES.load(key)


def parameters(key: str, values: Mapping[str, Any]) -> Parameters:
    """The technique's parameters, defaults filled in. Raises Unprocessable with one message per field."""
    try:
        return technique(key).parameters.model_validate(dict(values))
    except ValidationError as error:
        fields: dict[str, list[str]] = {}
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            name = ".".join(["params", *(str(part) for part in problem["loc"])])
            fields.setdefault(name, []).append(problem["msg"])
        raise Unprocessable(
            "invalid_parameters",
            f"The parameters of {key} are not valid.",
            " ".join(f"{name}: {'; '.join(messages)}." for name, messages in fields.items()),
            fields=fields,
        ) from error


def check_recipe(
    recipe: Recipe,
    *,
    signature: Mapping[str, Any],
    summary: Mapping[str, Any],
    has_calibration: bool,
    hardware: Hardware | None = None,
) -> Recipe:
    """The same recipe with every default written out, if each step can take what the one before it gives.

    Raises Unprocessable: `unknown_technique`, `invalid_parameters`, or the first refusal's code and title (with the
    technique's where there are several steps), and all other reasons in the detail. Without `hardware` what a worker
    has is not asked.
    """
    accepted = [(step.technique, parameters(step.technique, step.params)) for step in recipe.steps]
    given = ModelSummary.from_json(summary)
    found: list[tuple[str, Refusal]] = []
    for key, params in accepted:
        used = technique(key)
        reasons = refusals(
            used, signature, given, hardware=hardware, params=params, has_calibration=has_calibration
        )
        found.extend((used.label, reason) for reason in reasons)
        given = replace(
            given,
            format=used.gives.format,
            precision=used.gives.precision or given.precision,
            op_types=dict(given.op_types) | dict.fromkeys(used.gives_op_types, 1),
            unsigned=given.unsigned or (used.gives_unsigned is not None and used.gives_unsigned(params)),
        )
    if found:
        (label, first), *others = found
        title = f"{label}: {first.title}" if len(accepted) > 1 else first.title
        told = [f"{label}: {f'{reason.title} {reason.detail}'.strip()}" for label, reason in others]
        raise Unprocessable(
            first.code,
            title,
            " ".join(filter(None, [first.detail, *told])),
            extra={"refusals": [{"code": reason.code, "technique": label} for label, reason in found]},
        )
    return Recipe(
        steps=tuple(Step(technique=key, params=params.model_dump(mode="json")) for key, params in accepted)
    )


def refusals(
    used: Technique,
    signature: Mapping[str, Any],
    summary: ModelSummary,
    *,
    has_calibration: bool,
    hardware: Hardware | None = None,
    params: Parameters | None = None,
) -> tuple[Refusal, ...]:
    """Every reason why this technique cannot be used on this model, here. Pure; imports nothing of a vendor.

    Without `params` the defaults are judged, which is what a form asks before anything is filled in.
    """
    general = []
    precisions = [kind.precision for kind in used.takes if kind.format == summary.format]
    if not precisions:
        formats = {kind.format for kind in used.takes}
        general.append(_wrong_format(formats, summary.format))
    elif summary.precision is not None and None not in precisions and summary.precision not in precisions:
        taken = " or ".join(str(precision) for precision in precisions)
        general.append(
            Refusal(
                code="wrong_precision",
                title=f"It takes {taken}; this model is {summary.precision}.",
                detail="Start from the original version.",
            )
        )
    if used.calibrates(params or used.parameters()) and not has_calibration:
        general.append(CALIBRATION_MISSING)
    if used.device is Device.GPU and hardware is not None and not hardware.gpus:
        general.append(Refusal(code="no_gpu", title="It needs a GPU and this worker has none."))
    needed = used.needs(params or used.parameters(), format=summary.format)
    if needed and hardware is not None and needed not in hardware.toolchains:
        label = TOOLCHAINS[needed].label
        general.append(Refusal(code="no_toolchain", title=f"It needs {label} and this worker has none."))
    return (*general, *used.check(signature, summary, hardware or Hardware(), params or used.parameters()))


def _wrong_format(taken: set[str], given: str) -> Refusal:
    labels = " or ".join(FORMATS[key].label for key in FORMATS if key in taken)
    return Refusal(
        code="wrong_format",
        title=f"It takes {labels}; this is {with_article(given)}.",
        detail=EXPORT_FIRST if given in MUST_BE_EXPORTED else "",
    )


def toolchains_of(recipe: Recipe, *, parent_format: str) -> set[str]:
    """Keys of the toolchains that its steps, and measuring what they give against the parent, need."""
    used = [technique(step.technique) for step in recipe.steps]
    taken = [parent_format, *(row.gives.format for row in used)]
    needed = [
        row.needs(parameters(row.key, step.params), format=format)
        for row, step, format in zip(used, recipe.steps, taken, strict=False)
    ]
    return {key for key in needed if key} | measured_on(parent_format, used[-1].gives.format)


def needs_of(recipe: Recipe, *, parent_format: str, gpu: str = "") -> Needs:
    """What a job of this recipe needs of its worker. `gpu` is what somebody chose: `any`, or a compute capability. What
    runs on one is then measured there.

    Raises Unprocessable: `invalid_gpu`, and `other_gpu` where the engine is built for others only."""
    found = toolchains_of(recipe, parent_format=parent_format)
    needs = Needs(gpu=_gpu_of(recipe), toolchains=frozenset(found))
    if gpu != ANY_GPU or not needs.gpu:
        needs = needs.on(gpu)
    last = recipe.steps[-1]
    if not needs.gpu or not compared_on_gpu(parent_format, technique(last.technique).gives.format):
        return needs
    built_for = last.params.get("capabilities", [needs.gpu])
    if needs.gpu not in (ANY_GPU, *built_for):
        raise Unprocessable(
            "other_gpu",
            f"The engine is built for compute capability {', '.join(built_for)}, and shall be measured on {needs.gpu}.",
            f"Add {needs.gpu} to its capabilities, or choose one of them.",
        )
    return replace(needs, toolchains=needs.toolchains | {CUDA})


def _gpu_of(recipe: Recipe) -> str:
    """What its steps need by themselves: empty, `any` or a compute capability."""
    named = [parameters(step.technique, step.params).gpu for step in recipe.steps]
    needed = any(technique(step.technique).device is Device.GPU for step in recipe.steps)
    return next(filter(None, named), ANY_GPU if needed else "")


def promises_of(keys: Sequence[str]) -> list[dict[str, Any]]:
    """What the literature promises of each technique, for the report beside what was measured."""
    used = [technique(key) for key in keys]
    return [{"technique": row.key, "label": row.label, **row.promises.to_json()} for row in used]
