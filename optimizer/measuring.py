"""What it takes to measure a variant again as its first report did, and why it may not be possible.

A report says under "again" what cannot be read off the rows: the seed, the digest of the set, what was stated of the
model's answers, and the items that the variant was calibrated on, which may not be compared. Refused: measuring with
what is there now where that is gone; a spread between two reports would then be of the question, not of the machine.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.core.errors import Conflict, Unprocessable
from controlplane.registry.models import Dataset, Report, Variant
from optimizer.workbench.formats import known

AGAIN = "again"


def note(
    *, seed: int, evaluation_set: Dataset | None, answers: Mapping[str, str], fitted_to: Sequence[int]
) -> dict[str, Any]:
    """What a report keeps, so that it can be made again."""
    used = evaluation_set
    return {
        "seed": seed,
        "evaluation_set": {"name": used.name, "sha256": used.artifact.sha256} if used else None,
        "answers": dict(answers),
        "fitted_to": list(fitted_to),
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


def refuse_unmeasurable(variant: Variant) -> None:
    """Before anything is queued."""
    if variant.parent is None:
        raise Unprocessable(
            "nothing_to_compare",
            f"{variant} is what the others are measured against.",
            "Choose a variant that a recipe made.",
        )
    row = known(variant.format)
    if row.opener is None:
        raise Unprocessable(
            "cannot_run_here",
            f"{row.label} does not run on a CPU, so there is nothing to time.",
            "It is measured where the hardware is that it was built for.",
        )


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
