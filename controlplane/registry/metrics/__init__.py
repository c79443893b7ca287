"""What an evaluation set is scored by: one table of metrics, and which of them fits labels and outputs.

Rows are listed by hand; other packages add theirs through the entry-point group `slipway.metrics`. Here is what can be
judged when the set is uploaded, before a job costs anything. Imports no Django: the sandbox reads it too.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from controlplane.core.errors import Unprocessable
from controlplane.core.plugins import Entry, PluginTable
from controlplane.registry.answers import MEAN, NO_POOLING, Answers, Signature, pooled_shape
from controlplane.registry.metrics.port import (
    CLASSES,
    LABELS_IN_WORDS,
    NUMBERS,
    TEXTS,
    TOKENS,
    VECTORS,
    Labels,
    Metric,
    kind_of,
)

__all__ = ["CLASSES", "METRICS", "NUMBERS", "TEXTS", "TOKENS", "TOP_1", "VECTORS", "Metric"]

_OURS = "controlplane.registry.metrics.ours"
TOP_1 = "top-1"
METRICS: PluginTable[Metric] = PluginTable(
    group="slipway.metrics",
    entries=(
        Entry(key=TOP_1, label="Top-1 accuracy", path=f"{_OURS}:TOP_1"),
        Entry(key="f1-macro", label="F1, mean over classes", path=f"{_OURS}:F1"),
        Entry(key="r2", label="R², variance explained", path=f"{_OURS}:R2"),
        Entry(key="cosine", label="Cosine to the labels, mean", path=f"{_OURS}:COSINE"),
        Entry(key="wer", label="Words right (1 − word error rate)", path=f"{_OURS}:WER"),
        Entry(key="map", label="mAP of boxes", path=f"{_OURS}:MAP"),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What of a model's answers a metric reads."""

    outputs: tuple[str, ...]
    pooling: str


def metric(key: str) -> Metric:
    """Raises Unprocessable("unknown_metric") that lists those there are: a set may outlive the package that scores it,
    and an environment may be without it."""
    if key not in METRICS:
        raise Unprocessable(
            "unknown_metric",
            f"There is no metric “{key[:60]}”.",
            f"There are: {', '.join(METRICS)}. If a package brings it, install that wherever it is measured.",
        )
    return METRICS.load(key)


def every() -> Iterator[Metric]:
    return map(METRICS.load, METRICS)


def reading(row: Metric, labels: Labels | None, signature: Signature, answers: Answers) -> Reading | None:
    """The outputs that the metric scores: the one that was stated where it can, else the first that it can; pooled as
    was stated, else as the labels have it."""
    settled = answers.settled(signature)
    outputs = sorted(signature["outputs"], key=lambda port: port["name"] != settled.output)
    other = NO_POOLING if settled.pooling == MEAN else MEAN
    for pooling in (settled.pooling, other) if labels else (settled.pooling,):
        ports = [{**port, "shape": pooled_shape(port, signature, pooling=pooling)} for port in outputs]
        if names := row.finds(ports, labels):
            return Reading(outputs=names, pooling=pooling)
    return None


def comparing(answers: Answers, signature: Signature) -> tuple[Metric, Reading] | None:
    """The metric by which the model's task compares answers with the parent's, None where it has none of its own."""
    task = answers.settled(signature).task
    for row in every():
        if row.task == task and row.agreement and (found := reading(row, None, signature, answers)):
            return row, found
    return None


def chosen(key: str, *, labels: Labels | None, signature: Signature, answers: Answers | None = None) -> str:
    """The key of the metric for a set with these labels: the one that was asked for, else the first that takes them,
    those of the stated task before others, and those that an output fits. "" without labels. Raises Unprocessable where
    labels, metric and outputs do not fit; class numbers that nobody asked to score are kept for top-1, which looks at
    the answers themselves."""
    stated = answers or Answers()
    if labels is None:
        if key:
            raise _unfit(f"{metric(key).label} needs labels, and the set has none.")
        return ""
    kind = kind_of(labels)
    row = metric(key) if key else _by_labels(labels, signature, stated)
    if kind not in row.wants:
        wanted = " or ".join(LABELS_IN_WORDS[want] for want in row.wants)
        raise _unfit(f"{row.label} takes {wanted}; the labels are {LABELS_IN_WORDS[kind]}.")
    if not key and row.key == TOP_1:
        return row.key
    if reading(row, labels, signature, stated) is None:
        outputs = ", ".join(
            f"“{port['name'][:60]}” {port['dtype']} {port['shape']}" for port in signature["outputs"][:4]
        )
        raise _unfit(f"{row.label} expects an output with {row.expects}; the model has {outputs}.")
    return row.key


def _by_labels(labels: Labels, signature: Signature, answers: Answers) -> Metric:
    rows = [row for row in every() if kind_of(labels) in row.wants]
    return min(
        rows,
        key=lambda row: (row.task != answers.task, reading(row, labels, signature, answers) is None),
    )


def _unfit(detail: str) -> Unprocessable:
    return Unprocessable(
        "metric_unfit", "The labels cannot be scored that way.", detail, fields={"metric": [detail]}
    )
