"""What a variant must have shown before an alias points to it.

The version's own bytes need no evidence: they are what everything else is compared with.
"""

from controlplane.core.errors import Conflict
from controlplane.registry.models import Variant, Verdict

MAX_OVERRIDE = 500


def passed(variant: Variant) -> bool:
    return not variant.technique or variant.verdict == Verdict.BETTER


def refusal(variant: Variant) -> Conflict:
    """With the evidence, and what to do. One query."""
    report = variant.reports.first()
    evidence = report.sentence if report else "It was never measured."
    title = f"{variant} has not passed its gate."
    return Conflict(
        "gate_failed",
        title,
        f"{evidence} Choose another variant, or say why this one shall be used all the same (`override`).",
        fields={"override": [f"{title} {evidence} Say why it shall be used all the same."]},
    )
