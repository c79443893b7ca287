"""What it takes to measure a variant again as its first report did, and why it may not be possible.

A report says under "again" what cannot be read off the rows: the seed, the digest of the set, what was stated of the
model's answers, and the items that the variant was calibrated on, which may not be compared. Refused: measuring with
what is there now where that is gone; a spread between two reports would then be of the question, not of the machine.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from controlplane.core.errors import Conflict, Unprocessable
from controlplane.registry.engines import Engine, Gpu, why_not
from controlplane.registry.formats import TENSORRT, with_article
from controlplane.registry.models import Dataset, Report, Variant
from optimizer.queues import Needs
from optimizer.toolchains import CUDA, TOOLCHAINS
from optimizer.workbench.formats import compared_on_gpu, known, measured_on

AGAIN = "again"


def note(
    *,
    seed: int,
    evaluation_set: Dataset | None,
    answers: Mapping[str, str],
    fitted_to: Sequence[int],
    gpu: str = "",
) -> dict[str, Any]:
    """What a report keeps, so that it can be made again. `gpu` is the compute capability of the one that was chosen for
    it."""
    used = evaluation_set
    return {
        "seed": seed,
        "evaluation_set": {"name": used.name, "sha256": used.artifact.sha256} if used else None,
        "answers": dict(answers),
        "fitted_to": list(fitted_to),
        "gpu": gpu,
    }


def first_note(variant: Variant) -> Mapping[str, Any]:
    """Of its first report. Raises Conflict where there is none, or none that says how it was made."""
    first: Report | None = variant.reports.order_by("pk").first()
    found = first.data.get(AGAIN) if first is not None else None
    if found is None:
        raise Conflict(
            "not_repeatable",
            f"{variant} has no report that says how it was measured.",
            "Make the variant again with the recipe of its job.",
        )
    return dict(found)


def needs(variant: Variant, *, capabilities: Collection[str]) -> Needs:
    """What measuring it needs of a worker; `capabilities` are those of the GPUs that workers have. Raises Unprocessable
    where nothing could measure it, before anything is queued."""
    if variant.parent is None:
        raise Unprocessable(
            "nothing_to_compare",
            f"{variant} is what the others are measured against.",
            "Choose a variant that a recipe made.",
        )
    row, engine = known(variant.format), Engine.of(variant.provenance)
    chosen = first_note(variant).get("gpu", "")
    if row.opener is not None:
        if chosen:
            return Needs(gpu=chosen, toolchains=frozenset([CUDA]))
        return Needs(toolchains=frozenset(measured_on(variant.format, variant.parent.format)))
    if engine is None or not compared_on_gpu(variant.parent.format, variant.format):
        raise Unprocessable(
            "cannot_run_here",
            f"{row.label} does not run on a CPU, and nothing runs what it is measured against on a GPU.",
            "Make the ONNX variant in a job of its own, and start from that.",
        )
    owned = sorted(filter(engine.fits, capabilities), key=float)
    if not owned:
        raise Unprocessable(
            "cannot_run_here",
            f"{row.label} does not run on a CPU, and no worker has a GPU that it was built for.",
            f"Those have compute capability {', '.join(engine.capabilities)}.",
        )
    return Needs(gpu=chosen if chosen in owned else owned[-1], toolchains=frozenset([CUDA]))


def why_not_on_gpu(
    parent_format: str,
    made_format: str,
    engine: Engine | None,
    *,
    gpu: Gpu | None,
    cuda: Mapping[str, str] | None,
) -> str:
    """Why a worker does not measure something on its GPU, as a sentence; empty where it does. `engine` is what it says
    of itself, where it is one; `cuda` are the versions of that toolchain there, None without it."""
    if not compared_on_gpu(parent_format, made_format):
        return (
            f"What it is measured against is {with_article(parent_format)}, which nothing here runs on a GPU."
        )
    if gpu is None:
        return "This worker has no GPU."
    if cuda is None:
        return f"{TOOLCHAINS[CUDA].label} is not installed on this worker."
    if made_format != TENSORRT:
        return ""
    if engine is None:
        return "It does not say what it was built for."
    if engine.package not in cuda:
        return f"{engine.label} is not in this worker's {TOOLCHAINS[CUDA].label} toolchain."
    least, _ = engine.batches
    if least > 1:
        return f"It takes no fewer than {least} items at once, and a report times single ones."
    return why_not(engine, replace(gpu, version=cuda[engine.package]))


def evaluation_set(variant: Variant) -> Dataset | None:
    """The set with the bytes that the first report was made on, None if it was made on random inputs. Raises
    Conflict where no set of the model has them any more."""
    used = first_note(variant)["evaluation_set"]
    if used is None:
        return None
    rows = Dataset.objects.filter(model=variant.version.model_id, artifact__sha256=used["sha256"])
    found = rows.select_related("artifact").first()
    if found is None:
        raise Conflict(
            "dataset_gone",
            f"The data set “{used['name']}” that {variant} was measured on was deleted.",
            "Upload the same file again; it is known by its digest.",
        )
    return found
