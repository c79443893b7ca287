"""The evaluation as a child process runs it: parent and variant in, report out.

Accuracy comes before timing, because outputs that cannot be used end the evaluation; footprints come first,
while this process is still small.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.core.errors import SlipwayError
from optimizer.domain.verdict import Basis, Policy, decide
from optimizer.evaluation import accuracy, benchmark, footprint, machine
from optimizer.evaluation.ranges import integer_ranges
from optimizer.evaluation.report import CurvePoint, Method, Report
from optimizer.evaluation.synthetic import random_items
from optimizer.techniques import promises_of
from optimizer.workbench.items import Items, read_npz
from optimizer.workbench.journal import Emit, Journal
from optimizer.workbench.session import GRAPH_OPTIMIZATION, first_line, open_session, pass_on
from optimizer.workbench.signature import Array, Feed, Signature

BATCH_SIZES = (1, 8)
CURVE_SIZES = (1, 2, 4, 8, 16)
RANDOM_COUNT = 512
# Different inputs in turn, so that no side is timed on one lucky item.
FEEDS = 4
SHARES = {"accuracy": 0.3, "timing": 0.6, "curve": 0.1}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One side of the comparison: the file and an open session on it."""

    path: Path
    session: Any
    outputs: tuple[str, ...]

    def run(self, feed: Feed) -> dict[str, Array]:
        return dict(zip(self.outputs, self.session.run(list(self.outputs), feed), strict=True))


@dataclass(frozen=True, kw_only=True)
class Request:
    """The spec, read. `budget_s` bounds what is measured, not loading files."""

    parent: Path
    variant: Path
    signature: Signature
    evaluation_npz: Path | None
    fitted_to: frozenset[int]
    threads: int
    budget_s: float
    seed: int
    policy: Policy
    promises: tuple[Mapping[str, Any], ...]

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> "Request":
        return cls(
            parent=Path(spec["parent_path"]),
            variant=Path(spec["variant_path"]),
            signature=Signature.from_json(spec["signature"]),
            evaluation_npz=Path(spec["evaluation_npz"]) if spec.get("evaluation_npz") else None,
            fitted_to=frozenset(map(int, spec.get("fitted_to", ()))),
            threads=int(spec.get("threads", 1)),
            budget_s=float(spec.get("budget_s", 40)),
            seed=int(spec.get("seed", 0)),
            policy=Policy(**spec.get("policy", {})),
            promises=tuple(promises_of(spec.get("techniques", ()))),
        )


@dataclass(frozen=True, kw_only=True)
class Timings:
    control: tuple[benchmark.Control, ...] = ()
    timings: tuple[benchmark.Timing, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    cores: tuple[int, ...] = ()


def evaluate(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """The report of `spec["variant_path"]` against `spec["parent_path"]`, as JSON.

    Spec: parent_path, variant_path, signature, evaluation_npz or null, threads, budget_s, seed; optional
    `policy` (fields of Policy), `techniques` (keys, whose promises the report shows) and `fitted_to` (items of
    the set that the variant was calibrated on, which are not compared). A variant that cannot be used ends in a
    report with the verdict `failed`; a parent or a set that cannot be used raises Unprocessable. Cost: about the
    budget, and two short processes.
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
        variant = _open(request.variant, request)
        compared = accuracy.compare(
            parent=parent.run,
            variant=_guarded(variant),
            items=items,
            left_out=fitted_to,
            signature=request.signature,
            basis=basis,
            budget_s=SHARES["accuracy"] * request.budget_s,
            seed=request.seed,
            on_progress=journal.progress,
        )
    except (accuracy.UnusableOutputs, SlipwayError) as error:
        failure = _reason(error)
    if compared is not None:
        if compared.compared < compared.available:
            notes.append(
                f"{compared.compared:,} of {compared.available:,} items were compared in the time given."
            )
        journal.step("Measure speed")
        measured = _measure(request, parent, variant, items, journal)

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
        machine=machine.describe(),
        method=Method(
            threads=request.threads,
            cores=measured.cores,
            seed=request.seed,
            budget_s=request.budget_s,
            elapsed_s=round(time.monotonic() - began, 2),
            load_average_before=load_before,
            load_average_after=machine.load_average(),
            graph_optimization=GRAPH_OPTIMIZATION,
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


def _open(path: Path, request: Request) -> Subject:
    names = tuple(spec.name for spec in request.signature.outputs)
    return Subject(path=path, session=open_session(path, threads=request.threads), outputs=names)


def _items(request: Request, parent: Subject) -> tuple[Items, Basis, str]:
    if request.evaluation_npz is not None:
        stored = read_npz(request.evaluation_npz, request.signature)
        kind = "labelled" if stored.labels is not None else "unlabelled"
        return stored, Basis.EVALUATION_SET, f"an evaluation set of {len(stored):,} {kind} items"
    made = random_items(
        request.signature,
        ranges=integer_ranges(request.parent),
        runs=parent.run,
        seed=request.seed,
        count=RANDOM_COUNT,
    )
    return made, Basis.RANDOM_INPUTS, "random inputs that respect the signature (no evaluation set was given)"


def _fitted_to(request: Request, items: Items) -> frozenset[int]:
    """What may not be compared; nothing where nothing else would be left."""
    if request.evaluation_npz is None:
        return frozenset()
    known = request.fitted_to & frozenset(range(len(items)))
    return known if len(known) < len(items) else frozenset()


def _footprints(request: Request, items: Items) -> tuple[footprint.Footprint, footprint.Footprint]:
    with tempfile.TemporaryDirectory(prefix="footprint-") as folder:
        feed = items.feed([0])
        first, second = (
            footprint.measure(path, feed=feed, threads=request.threads, scratch=Path(folder))
            for path in (request.parent, request.variant)
        )
    return first, second


def _guarded(variant: Subject) -> accuracy.Run:
    """A variant that opens but cannot run is as unusable as one that answers NaN."""

    def run(feed: Feed) -> dict[str, Array]:
        try:
            return variant.run(feed)
        except Exception as error:  # the runtime's exceptions share no base class but Exception
            pass_on(error)
            raise accuracy.UnusableOutputs(f"the variant cannot run: {first_line(error)}") from error

    return run


def _reason(error: Exception) -> str:
    text = (
        " ".join(filter(None, (error.title, error.detail))) if isinstance(error, SlipwayError) else str(error)
    )
    return text if text.endswith(".") else f"{text}."


def _measure(request: Request, parent: Subject, variant: Subject, items: Items, journal: Journal) -> Timings:
    twin = _open(request.parent, request)
    sizes = BATCH_SIZES if request.signature.batched else BATCH_SIZES[:1]
    controls, timings, curve = [], [], {}
    budgets = {size: SHARES["timing"] * request.budget_s * (0.6 if size > 1 else 0.4) for size in sizes}
    with machine.steady(threads=request.threads) as cores:
        for size in sizes:
            control, timing, seconds = benchmark.compare(
                parent=_arm(parent, items, size),
                twin=_arm(twin, items, size),
                variant=_arm(variant, items, size),
                batch_size=size,
                budget_s=budgets[size],
                seed=request.seed,
                policy=request.policy,
                on_round=lambda done: journal.progress(done, benchmark.Pace().max_rounds),
            )
            journal.info(
                f"Batch {size}: {timing.speedup.value:.2f}x over {timing.speedup.n} rounds; "
                f"the parent against itself differs by {100 * timing.spread:.1f} %."
            )
            controls.append(control)
            timings.append(timing)
            curve[size] = benchmark.summarize(seconds)
        for size in CURVE_SIZES if request.signature.batched else ():
            if size not in curve:
                budget_s = SHARES["curve"] * request.budget_s / 3
                curve[size] = _curve_point(_arm(variant, items, size), budget_s=budget_s, seed=request.seed)
    return Timings(
        control=tuple(controls),
        timings=tuple(timings),
        curve=tuple(_point(size, curve[size]) for size in sorted(curve)),
        cores=tuple(cores),
    )


def _arm(subject: Subject, items: Items, size: int) -> benchmark.Arm:
    feeds = [
        items.feed([(start * size + offset) % len(items) for offset in range(size)])
        for start in range(min(FEEDS, len(items)))
    ]
    session, names = subject.session, list(subject.outputs)
    return lambda index: session.run(names, feeds[index % len(feeds)])


def _curve_point(arm: benchmark.Arm, *, budget_s: float, seed: int) -> benchmark.Distribution:
    taken = benchmark.rounds(
        {"variant": arm}, pace=benchmark.Pace(warmup=2, min_rounds=7), budget_s=budget_s, seed=seed
    )
    return benchmark.summarize(taken["variant"])


def _point(size: int, side: benchmark.Distribution) -> CurvePoint:
    return CurvePoint(
        batch_size=size,
        median_ms=side.median_ms,
        p25_ms=side.p25_ms,
        p90_ms=side.p90_ms,
        rounds=side.rounds,
    )
