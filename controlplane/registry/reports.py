"""A report as a page says it: numbers with their intervals in one table, and honest words for the rest.

The registry shows reports without importing what made them: it reads the JSON of version 1, and what is
missing there is missing on the page. Every ratio is variant over parent, whatever way round it was measured.
Refused: one number as "the speed-up" of a variant; batch sizes behave differently and are shown apart.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.core import formats
from controlplane.registry import clocks
from controlplane.registry.models import Report

UNMEASURED = (1, 8)
"""Batch sizes of a table that has no report yet."""
_BASIS = {
    "evaluation_set": "Agreement with the parent on an evaluation set without labels",
    "random_inputs": "Agreement with the parent on random inputs",
}
_CAUTION = {
    "labels": "",
    "evaluation_set": "Agreement is not accuracy: where the parent is wrong, agreeing with it is wrong too.",
    "random_inputs": "Random inputs are not your data. This shows whether the variant computes the same, "
    "not whether it is accurate. Upload an evaluation set to know more.",
}
_CLAIMED = {"gain", "loss"}
_UNCLAIMED = {"no_gain": "no gain as large as is asked", "unclear": "too unclear to call a gain or a loss"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the comparison. `ratio`, `low` and `high` are variant / parent; None where unknown.

    `points_of` is the parent's share in percent where the change is said in points.
    """

    measure: str
    parent: float | None
    variant: float | None
    unit: str
    ratio: float | None
    low: float | None
    high: float | None
    better: str
    note: str = ""
    points_of: float | None = None


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """How many times as fast, for the short cells of a list."""

    batch_size: int
    value: float | None
    low: float | None
    high: float | None

    @property
    def headline(self) -> str:
        return formats.NOTHING if self.value is None else f"{formats.significant(self.value)}×"

    @property
    def between(self) -> str:
        if self.low is None or self.high is None:
            return ""
        return f"{formats.significant(self.low)} to {formats.significant(self.high)}"

    def __str__(self) -> str:
        return f"{self.headline} ({self.between})" if self.between else self.headline


def comparison(data: Mapping[str, Any]) -> list[Row]:
    """Speed at each batch size, answers, size, load time and memory."""
    rows = [_latency(timing) for timing in data.get("timings") or ()]
    accuracy = data.get("accuracy")
    if accuracy:
        rows.append(_answers(accuracy))
    parent, variant = data.get("parent") or {}, data.get("variant") or {}
    rows.append(_bytes("File size", parent.get("file_bytes"), variant.get("file_bytes")))
    rows.append(
        _cost("Load time", parent.get("load_ms"), variant.get("load_ms"), unit="ms", note="one load each")
    )
    note = "growth by loading and one request"
    rows.append(_bytes("Memory", parent.get("memory_bytes"), variant.get("memory_bytes"), note=note))
    return rows


def hardware(data: Mapping[str, Any]) -> str:
    """What it was measured on: the GPU, or the processor."""
    machine = data.get("machine") or {}
    return str(machine.get("gpu") or machine.get("cpu_model") or "")


def batch_sizes(reports: Iterable[Mapping[str, Any]]) -> list[int]:
    """Those that any of these reports measured: the columns of a table of them."""
    found = {timing["batch_size"] for data in reports for timing in data.get("timings") or ()}
    return sorted(found or UNMEASURED)


def speedups(data: Mapping[str, Any], *, sizes: Iterable[int] = ()) -> list[Speedup]:
    """One for each of the sizes, or of those that it measured; empty values where it did not."""
    found = {timing["batch_size"]: timing["speedup"] for timing in data.get("timings") or ()}
    return [
        Speedup(
            batch_size=size,
            value=found.get(size, {}).get("value"),
            low=found.get(size, {}).get("low"),
            high=found.get(size, {}).get("high"),
        )
        for size in sizes or batch_sizes([data])
    ]


def loss(data: Mapping[str, Any]) -> str:
    """What it costs in answers, in a few words that never call agreement accuracy."""
    accuracy = data.get("accuracy")
    if not accuracy:
        return formats.NOTHING
    lost = 100 * accuracy["loss"]["value"]
    if accuracy["basis"] == "labels":
        if round(lost, 2) == 0:
            return "±0 points"
        return f"{'−' if lost > 0 else '+'}{formats.significant(abs(lost), digits=2)} points"
    if by_task(accuracy):
        return f"{accuracy['agreement']['value']:.4f} {accuracy['measure']}"
    return f"{formats.significant(100 * accuracy['agreement']['value'])} % agree"


def by_task(accuracy: Mapping[str, Any]) -> bool:
    """Whether agreement is what the model's task measures it by, not a share of items."""
    return accuracy["basis"] != "labels" and bool(accuracy.get("metric"))


def answers(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """How answers were compared, with what may not be concluded from it."""
    accuracy = data.get("accuracy")
    if not accuracy:
        return None
    basis = accuracy["basis"]
    return {
        **accuracy,
        "title": _title(accuracy),
        "measure": _capital(accuracy.get("measure", "accuracy")),
        "caution": _CAUTION.get(basis, ""),
        "labelled": basis == "labels",
        "by_task": by_task(accuracy),
        "agreement_percent": _percent(accuracy.get("agreement")),
        "loss_points": _percent(accuracy.get("loss")),
        "parent_percent": _percent(accuracy.get("parent_accuracy")),
        "variant_percent": _percent(accuracy.get("variant_accuracy")),
    }


def _title(accuracy: Mapping[str, Any]) -> str:
    if accuracy["basis"] == "labels":
        return f"{_capital(accuracy.get('measure', 'accuracy'))} on labelled items"
    return _BASIS.get(accuracy["basis"], str(accuracy["basis"]))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def promised(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the literature says of each technique, as text, to stand beside what was measured."""
    return [promise_in_words(promise) for promise in data.get("promises") or ()]


def promise_in_words(promise: Mapping[str, Any]) -> dict[str, Any]:
    speed, points = promise["speedup"], promise["loss_points"]
    return {
        "label": promise.get("label", promise.get("technique", "")),
        "speedup": f"{speed[0]:g} to {speed[1]:g}×",
        "loss": "nothing" if not any(points) else f"{points[0]:g} to {points[1]:g} points",
        "effort": promise["effort"],
    }


def controls(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parent against itself: what this machine calls a difference where there is none.

    `needed_percent` is the gain from which one may be claimed; None where the rounds were too few to tell.
    """
    policy = data.get("policy") or {}
    return [
        {
            "batch_size": control["batch_size"],
            "spread_percent": _in_percent(control["spread"]),
            "needed_percent": _in_percent(_needed(control["spread"], policy)),
            "first": control["first"],
            "beside": control["beside"],
        }
        for control in data.get("control") or ()
    ]


def curve(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Service time of one request by its number of items, and what that makes per item and second."""
    return [
        point | {"per_item_ms": point["median_ms"] / point["batch_size"], "items_per_s": _rate(point)}
        for point in data.get("service_curve") or ()
    ]


def _needed(spread: float | None, policy: Mapping[str, Any]) -> float | None:
    if spread is None:
        return None
    noise = float(policy.get("noise_factor", 3.0)) * max(spread, float(policy.get("spread_floor", 0.0)))
    return max(noise, float(policy.get("min_speedup", 1.0)) - 1)


def _in_percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _rate(point: Mapping[str, Any]) -> float | None:
    return 1000 * point["batch_size"] / point["median_ms"] if point["median_ms"] else None


def _latency(timing: Mapping[str, Any]) -> Row:
    """Better or worse only where the measurement claims so: an interval beside 1 may still be this machine's noise."""
    speedup, claim, spread = timing["speedup"], timing.get("claim", ""), timing["spread"]
    notes = [
        f"median of {speedup['n']} paired rounds",
        "A/A spread unknown" if spread is None else f"A/A spread {100 * spread:.1f} %",
        *(["noisy"] if timing.get("noisy") else []),
        *([_UNCLAIMED[claim]] if claim in _UNCLAIMED else []),
    ]
    return Row(
        measure=f"Latency, batch {timing['batch_size']}",
        parent=timing["parent"]["median_ms"],
        variant=timing["variant"]["median_ms"],
        unit="ms",
        ratio=_inverse(speedup["value"]),
        low=_inverse(speedup["high"]),
        high=_inverse(speedup["low"]),
        better="lower" if claim in _CLAIMED else "",
        note="; ".join(notes),
    )


def _answers(accuracy: Mapping[str, Any]) -> Row:
    counted = f"{accuracy['compared']:,} of {accuracy['available']:,} items"
    parent, variant = accuracy.get("parent_accuracy"), accuracy.get("variant_accuracy")
    if accuracy["basis"] == "labels" and parent and variant and parent["value"]:
        loss, base = accuracy["loss"], parent["value"]
        ratios = [
            None if loss[end] is None else (base - loss[end]) / base for end in ("value", "high", "low")
        ]
        return Row(
            measure=_capital(accuracy.get("measure", "accuracy")),
            parent=100 * base,
            variant=100 * variant["value"],
            unit="%",
            ratio=ratios[0],
            low=ratios[1],
            high=ratios[2],
            better="higher",
            note=f"{counted}; the interval is of {accuracy['loss']['confidence']:.0%}",
            points_of=100 * base,
        )
    agreement = accuracy["agreement"]
    kind = "random inputs" if accuracy["basis"] == "random_inputs" else "items"
    if by_task(accuracy):
        return Row(
            measure=_capital(accuracy["measure"]),
            parent=1.0,
            variant=agreement["value"],
            unit="",
            ratio=agreement["value"],
            low=agreement["low"],
            high=agreement["high"],
            better="",
            note=f"{accuracy['compared']:,} {kind}; agreement, not accuracy",
        )
    return Row(
        measure="Same answer as the parent",
        parent=100.0,
        variant=100 * agreement["value"],
        unit="%",
        ratio=agreement["value"],
        low=agreement["low"],
        high=agreement["high"],
        better="",
        note=f"{accuracy['compared']:,} {kind}; agreement, not accuracy",
    )


def _bytes(measure: str, parent: float | None, variant: float | None, *, note: str = "") -> Row:
    """Both in the unit that suits the larger one."""
    largest = max((value for value in (parent, variant) if value is not None), default=None)
    unit = formats.size(largest).unit or "B"
    factor = 1024 ** ("B", "KiB", "MiB", "GiB", "TiB", "PiB").index(unit)
    return _cost(
        measure,
        parent / factor if parent is not None else None,
        variant / factor if variant is not None else None,
        unit=unit,
        note=note,
    )


def _cost(measure: str, parent: float | None, variant: float | None, *, unit: str, note: str = "") -> Row:
    ratio = variant / parent if parent and variant is not None else None
    return Row(
        measure=measure,
        parent=parent,
        variant=variant,
        unit=unit,
        ratio=ratio,
        low=None,
        high=None,
        better="",
        note=note,
    )


def _inverse(value: float | None) -> float | None:
    return 1 / value if value else None


def _percent(estimate: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not estimate:
        return None
    scaled = {end: None if estimate[end] is None else 100 * estimate[end] for end in ("value", "low", "high")}
    return scaled | {"n": estimate["n"], "confidence_percent": round(100 * estimate["confidence"])}


def said(row: Report) -> str:
    """The sentence without the verdict's word, which the banner says already."""
    word = f"{row.get_verdict_display()}: "
    text = row.sentence.removeprefix(word)
    return text[:1].upper() + text[1:]


def presented(data: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the report's template shows."""
    return {
        "rows": comparison(data),
        "answers": answers(data),
        "promises": promised(data),
        "timed": bool(data.get("timings")),
        "controls": controls(data),
        "curve": curve(data),
        "speedups": speedups(data),
        "loss": loss(data),
        "machine": data.get("machine") or {},
        "method": data.get("method") or {},
        "clocks": clocks.in_words(data),
        "policy": data.get("policy") or {},
        "notes": data.get("notes") or [],
        "noisy": bool(data.get("noisy")),
    }
