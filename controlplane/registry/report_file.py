"""A report as one HTML file to keep, send and print: everything is inside, nothing is fetched and nothing runs."""

from django.template.loader import render_to_string

from controlplane.core import formats
from controlplane.registry import plots, reports
from controlplane.registry.engines import Engine
from controlplane.registry.models import Report, Variant


def name(variant: Variant, row: Report, suffix: str) -> str:
    """What the file is called once it is saved."""
    version = variant.version
    return f"{version.model.name}-v{version.number}-{variant.number}-report-{row.pk}.{suffix}"


def html(variant: Variant, row: Report) -> str:
    """Takes the variant with its version, model, parent and artifact. No query."""
    context = {
        "title": f"{variant}, variant {variant.number}",
        "parent_label": variant.parent.label if variant.parent else formats.NOTHING,
        "digest": f"sha256:{variant.artifact.sha256}",
        "measured_at": formats.absolute(row.created_at),
        "report": row,
        "said": reports.said(row),
        "shown": reports.presented(row.data),
        "engine": Engine.of(variant.provenance),
        "plots": plots.plots(row.data),
        "curve": plots.curve(row.data),
    }
    return render_to_string("registry/report_file.html", context)
