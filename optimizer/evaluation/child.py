"""The evaluation as a child process runs it: parent and variant in, report out.

Accuracy comes before timing, because outputs that cannot be used end the evaluation; footprints come first,
while this process is still small.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controlplane.core.errors import SlipwayError, Unprocessable
from optimizer.domain.verdict import Basis, decide
from optimizer.evaluation import accuracy, benchmark, clocks, footprint, machine
from optimizer.evaluation.elsewhere import Elsewhere
from optimizer.evaluation.ranges import Range, integer_ranges
from optimizer.evaluation.report import CurvePoint, Method, Report
from optimizer.evaluation.request import File, Request
from optimizer.evaluation.subject import Subject
from optimizer.evaluation.synthetic import random_items
from optimizer.workbench.formats import open_as
from optimizer.workbench.items import Items, is_classes, read_npz
from optimizer.workbench.journal import Emit, Journal
from optimizer.workbench.signature import Array, Feed, Signature

CURVE_SIZES = (1, 2, 4, 8, 16, 32)
RANDOM_COUNT = 512
# Different inputs in turn, so that no side is timed on one lucky item.
FEEDS = 4
SHARES = {"accuracy": 0.3, "timing": 0.6, "curve": 0.1}
LONGEST = 2.0
"""A batch is not timed whose fewest rounds would take this many times the whole budget."""


class ParentFails(Unprocessable):
    """What is no fault of the variant."""


@dataclass(frozen=True, kw_only=True)
class Timings:
    control: tuple[benchmark.Control, ...] = ()
    timings: tuple[benchmark.Timing, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    cores: tuple[int, ...] = ()
    clocks_before: clocks.Clocks | None = None
    clocks_after: clocks.Clocks | None = None
    left_out: tuple[str, ...] = ()


def evaluate(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """The report of `spec["variant_path"]` against `spec["parent_path"]`, as JSON.

    Spec: parent_path, variant_path, signature, evaluation_npz or null, threads, budget_s, seed; optional
    `parent_format`, `variant_format`, `metric` (how the set is scored), `answers` (fields of Answers), `policy` (fields
    of Policy), `techniques` (keys, whose promises the report shows) and `fitted_to` (items that the variant was
    calibrated on, not compared); `gpu` where both run on the GPU, with the `largest_batch` of an engine. A variant that
    does not run here is not timed (`no_gpu` says why); the answers of `stand_in_path`, the model that it was compiled
    from, are compared for it. `parent_python` where another interpreter must open the parent, and `exported_path` where
    neither side is ONNX. A variant that cannot be used ends in a report with the verdict `failed`; a parent or a
    set that cannot be used raises Unprocessable. Cost: about the budget, and two short processes.
    """
    request, journal, began = Request.from_spec(spec), Journal(emit=emit, steps=4), time.monotonic()
    load_before, notes = machine.load_average(), []
    journal.step("Read items")
    parent = _open(request.parent, request)
    items, basis, about = _items(request, parent)
    fitted_to = _fitted_to(request, items)
    if fitted_to:
        about = f"{about}, without the {len(fitted_to):,} that the variant was calibrated on"
    elif request.fitted_to:
        notes.append("The variant was calibrated on every item that it is compared on, so this flatters it.")
    journal.info(f"Comparing on {about}.")

    journal.step("Measure load time and memory")
    parent_cost, variant_cost = _footprints(request, items)

    measured, compared, failure = Timings(), None, ""
    journal.step("Compare answers")
    try:
        if request.answering is not None:
            variant = _open(request.answering, request)
            compared = accuracy.compare(
                parent=parent.guarded(_parent_fails(basis)),
                variant=variant.guarded(_variant_fails),
                items=items,
                left_out=fitted_to,
                metric=request.metric,
                answers=request.answers,
                signature=request.signature,
                batch_size=min(accuracy.BATCH_SIZE, request.largest_batch),
                basis=basis,
                budget_s=SHARES["accuracy"] * request.budget_s,
                seed=request.seed,
                on_progress=journal.progress,
            )
    except ParentFails:
        raise
    except (accuracy.UnusableOutputs, SlipwayError) as error:
        failure = _reason(error)
    if compared is not None and compared.compared < compared.available:
        notes.append(
            f"{compared.compared:,} of {compared.available:,} items were compared in the time given."
        )
    if request.answering is not request.variant:
        notes.append(_stood_in(request))
    elif compared is not None:
        journal.step("Measure speed")
        measured = _measure(request, parent, variant, items, journal)
        notes.extend(measured.left_out)

    judgment = decide(
        speeds=[timing.evidence() for timing in measured.timings],
        fidelity=compared.evidence() if compared else None,
        policy=request.policy,
        failure=failure,
    )
    journal.info(judgment.sentence)
    return Report(
        judgment=judgment,
        policy=request.policy,
        machine=_machine(request, parent),
        method=Method(
            threads=request.threads,
            cores=measured.cores,
            seed=request.seed,
            budget_s=request.budget_s,
            elapsed_s=round(time.monotonic() - began, 2),
            load_average_before=load_before,
            load_average_after=machine.load_average(),
            clocks_before=measured.clocks_before,
            clocks_after=measured.clocks_after,
            parent_runs_by=_runs_by(request.parent, request),
            variant_runs_by=_runs_by(request.variant, request),
            interleaved=True,
            inputs=about,
        ),
        control=measured.control,
        timings=measured.timings,
        accuracy=compared,
        service_curve=measured.curve,
        parent=parent_cost,
        variant=variant_cost,
        promises=request.promises,
        notes=tuple(notes),
    ).to_json()


def _open(file: File, request: Request) -> Subject:
    names = tuple(spec.name for spec in request.signature.outputs)
    if file.python is not None:
        there = Elsewhere(file.python, format=file.format.key, path=file.path, threads=request.threads)
        return Subject(session=there, outputs=names)
    session = open_as(file.format.key, file.path, threads=request.threads, gpu=request.gpu)
    return Subject(session=session, outputs=names)


def _machine(request: Request, parent: Subject) -> machine.Machine:
    found = machine.describe(gpu=request.gpu)
    if isinstance(parent.session, Elsewhere):
        return replace(found, versions=parent.session.versions | found.versions)
    return found


def _runs_by(file: File, request: Request) -> str:
    return file.format.gpu_runs_by if request.gpu else file.format.runs_by


def _stood_in(request: Request) -> str:
    what = f"The variant is a {request.variant.format.label}, which does not run here, so it was not timed."
    if request.no_gpu:
        what = f"{what} {request.no_gpu}"
    if request.answering is None:
        return f"{what} It was compiled from the parent as it is, so there were no answers to compare."
    source = request.answering.format.label
    return f"{what} The answers compared are those of the {source} model that it was compiled from."


def _items(request: Request, parent: Subject) -> tuple[Items, Basis, str]:
    if request.evaluation_npz is not None:
        stored = read_npz(request.evaluation_npz, request.signature)
        if _in_part(stored.labels):
            stored = replace(stored, labels=None)
        kind = "labelled" if stored.labels is not None else "unlabelled"
        return stored, Basis.EVALUATION_SET, f"an evaluation set of {len(stored):,} {kind} items"
    made = random_items(
        request.signature,
        ranges=_ranges(request),
        runs=_runs(request, parent),
        seed=request.seed,
        count=RANDOM_COUNT,
    )
    return made, Basis.RANDOM_INPUTS, "random inputs that respect the signature (no evaluation set was given)"


def _runs(request: Request, parent: Subject) -> Callable[[Feed], object]:
    """What made-up items are tried with: an engine takes fewer sizes than its parent."""
    if not request.gpu:
        return parent.run
    engine = _open(request.variant, request)
    return lambda feed: (parent.run(feed), engine.run(feed))


def _in_part(labels: Array | None) -> bool:
    """Whether it is a set to learn from, whose missing classes are -1. Vectors and texts have no such mark."""
    return labels is not None and is_classes(labels) and bool((labels < 0).any())


def _ranges(request: Request) -> Mapping[str, Range]:
    """From whichever side is ONNX; the others do not say what their inputs may hold."""
    sides = (request.parent, request.answering, request.variant)
    readable = [file.path for file in sides if file is not None and file.format.key == "onnx"]
    return next(map(integer_ranges, filter(None, [*readable, request.exported])), {})


def _fitted_to(request: Request, items: Items) -> frozenset[int]:
    """What may not be compared; nothing where nothing else would be left."""
    if request.evaluation_npz is None:
        return frozenset()
    known = request.fitted_to & frozenset(range(len(items)))
    return known if len(known) < len(items) else frozenset()


def _footprints(request: Request, items: Items) -> tuple[footprint.Footprint, footprint.Footprint]:
    with tempfile.TemporaryDirectory(prefix="footprint-") as folder:
        feed, names = items.feed([0]), [spec.name for spec in request.signature.outputs]
        first, second = (
            footprint.measure(
                file.path,
                format=file.format,
                feed=feed,
                outputs=names,
                threads=request.threads,
                scratch=Path(folder),
                python=file.python,
                gpu=request.gpu,
            )
            for file in (request.parent, request.variant)
        )
    return first, second


def _parent_fails(basis: Basis) -> Callable[[str], ParentFails]:
    """Values can be the reason where shapes are right: a step of 0, an index beyond its table."""
    advice = (
        "Give an evaluation set (npz)."
        if basis is Basis.RANDOM_INPUTS
        else "Leave out of the set what the model does not take."
    )
    title = "The model that is compared with fails on an item."
    return lambda why: ParentFails("parent_cannot_run", title, f"{why.rstrip('.')}. {advice}")


def _variant_fails(why: str) -> accuracy.UnusableOutputs:
    """A variant that opens but cannot run is as unusable as one that answers NaN."""
    return accuracy.UnusableOutputs(f"the variant cannot run: {why}")


def _reason(error: Exception) -> str:
    text = (
        " ".join(filter(None, (error.title, error.detail))) if isinstance(error, SlipwayError) else str(error)
    )
    return text if text.endswith(".") else f"{text}."


def _measure(request: Request, parent: Subject, variant: Subject, items: Items, journal: Journal) -> Timings:
    twin = _open(request.parent, request)
    controls, timings, left_out = list[benchmark.Control](), list[benchmark.Timing](), list[str]()
    sizes = request.batch_sizes
    with machine.steady(threads=request.threads) as cores:
        for side in (parent.session, twin.session):
            if isinstance(side, Elsewhere):
                side.hold(cores)
        watched = cores or machine.usable_cores()
        clocks_before = clocks.now(watched)
        for size in sizes:
            if timings and (why := _too_long(timings[-1], size, budget_s=request.budget_s)):
                left_out.append(why)
                break
            control, timing = benchmark.compare(
                parent=_arm(parent, items, size),
                twin=_arm(twin, items, size),
                variant=_arm(variant, items, size),
                batch_size=_rows(request.signature) or size,
                budget_s=SHARES["timing"] * request.budget_s / len(sizes),
                seed=request.seed,
                policy=request.policy,
                on_round=lambda done: journal.progress(done, benchmark.Pace().max_rounds),
            )
            journal.info(
                f"Batch {timing.batch_size}: {timing.speedup.value:.2f}x over {timing.speedup.n} rounds; "
                f"the parent against itself differs by {100 * timing.spread:.1f} %."
            )
            controls.append(control)
            timings.append(timing)
        curve = _curve(request, variant, items, timed=[timing.batch_size for timing in timings])
        clocks_after = clocks.now(watched)
    return Timings(
        control=tuple(controls),
        timings=tuple(timings),
        curve=curve,
        cores=tuple(cores),
        clocks_before=clocks_before,
        clocks_after=clocks_after,
        left_out=tuple(left_out),
    )


def _rows(signature: Signature) -> int | None:
    """The batch size that is written into the model itself, where there is one."""
    if signature.batched:
        return None
    shapes = [spec.shape for spec in (*signature.inputs, *signature.outputs)]
    first = {shape[0] if len(shape) > 1 else None for shape in shapes}
    rows = first.pop()
    return rows if not first and isinstance(rows, int) else None


def _too_long(last: benchmark.Timing, size: int, *, budget_s: float) -> str:
    """Why a larger batch than the last is not timed, judged by what that one took; empty where it is."""
    round_ms = (2 * last.parent.median_ms + last.variant.median_ms) * size / last.batch_size
    expected_s = benchmark.fewest_runs() * round_ms / 1000
    if expected_s <= LONGEST * budget_s:
        return ""
    return f"Batch {size} was not timed: that would take about {expected_s:,.0f} s."


def _arm(subject: Subject, items: Items, size: int) -> benchmark.Arm:
    feeds = [
        items.feed([(start * size + offset) % len(items) for offset in range(size)])
        for start in range(min(FEEDS, len(items)))
    ]
    session, names = subject.session, list(subject.outputs)
    if isinstance(session, Elsewhere):
        return session.arm(names, feeds)
    return lambda index: session.run(names, feeds[index % len(feeds)])


def _curve(request: Request, variant: Subject, items: Items, *, timed: list[int]) -> tuple[CurvePoint, ...]:
    """The variant on its own, as a replica runs it: beside its parent it finds its caches cold. Up to the largest
    batch that was `timed`."""
    (rows,) = timed if not request.signature.batched else (0,)
    sizes = [size for size in CURVE_SIZES if size <= max(timed)] if request.signature.batched else [1]
    budget_s = SHARES["curve"] * request.budget_s / len(sizes)
    return tuple(
        _point(_arm(variant, items, size), rows=rows or size, budget_s=budget_s, seed=request.seed)
        for size in sizes
    )


def _point(arm: benchmark.Arm, *, rows: int, budget_s: float, seed: int) -> CurvePoint:
    pace = benchmark.Pace(warmup=1, min_rounds=3)
    side = benchmark.summarize(
        benchmark.rounds({"variant": arm}, pace=pace, budget_s=budget_s, seed=seed)["variant"]
    )
    return CurvePoint(
        batch_size=rows,
        median_ms=side.median_ms,
        p25_ms=side.p25_ms,
        p90_ms=side.p90_ms,
        rounds=side.rounds,
    )
