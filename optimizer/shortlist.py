"""A search as its page and the API show it: every recipe of the plan, what it showed, and which are worth it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from controlplane.registry.models import Variant
from optimizer.domain.evidence import fidelity_of, speeds_of
from optimizer.domain.jobs import TERMINAL
from optimizer.domain.recipe import Recipe, Step
from optimizer.domain.search import NOTHING, SAME, Ends, Point, Range, SearchState, front, pruned
from optimizer.models import Job, Search


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """`measured`: points by the digest of every recipe whose job is over, none where it failed. `parent`: the yardstick
    at every batch size that anything was measured at."""

    recipes: list[Recipe]
    jobs: Mapping[int, Job]
    made: Mapping[int, Variant]
    measured: Mapping[str, list[Point]]
    parent: list[Point]

    @classmethod
    def of(cls, search: Search) -> Self:
        """Three queries."""
        recipes = [Recipe.from_json(recipe) for recipe in search.plan]
        jobs = {job.search_index: job for job in search.jobs.all() if job.search_index is not None}
        variants = Variant.objects.filter(job_id__in=[job.pk for job in jobs.values()])
        made = {
            row.job_id: row
            for row in variants.select_related("artifact", "version__model").prefetch_related("reports")
            if row.job_id is not None
        }
        measured = {
            recipes[index].digest: _points(made.get(job.pk))
            for index, job in jobs.items()
            if job.state in TERMINAL
        }
        sizes = sorted({point.batch_size for points in measured.values() for point in points})
        size_bytes = search.parent.artifact.size_bytes
        parent = [Point(batch_size=size, speedup=SAME, loss=NOTHING, size_bytes=size_bytes) for size in sizes]
        return cls(recipes=recipes, jobs=jobs, made=made, measured=measured, parent=parent)


def _points(made: Variant | None) -> list[Point]:
    """From the latest report; none where nothing was timed, or its answers cannot be used."""
    report = next(iter(made.reports.all()), None) if made is not None else None
    if made is None or report is None or report.verdict == "failed":
        return []
    fidelity = fidelity_of(report.data)
    if fidelity is None:
        return []
    loss = Range(value=fidelity.loss.value, low=fidelity.loss.low, high=fidelity.loss.high)
    return [
        Point(
            batch_size=speed.batch_size,
            speedup=Range(value=speed.speedup.value, low=speed.speedup.low, high=speed.speedup.high),
            loss=loss,
            size_bytes=made.artifact.size_bytes,
        )
        for speed in speeds_of(report.data)
    ]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One measured point, and whether nothing beats it."""

    point: Point
    on_front: bool

    @property
    def loss_percent(self) -> float:
        return 100 * self.point.loss.value

    @property
    def loss_percent_high(self) -> float:
        return 100 * self.point.loss.high


@dataclass(frozen=True, kw_only=True)
class Row:
    """One recipe. `state` is its job's, or `pending`, or `skipped`; `note` says why it was."""

    recipe: Recipe
    words: str
    state: str
    note: str
    job: Job | None
    variant: Variant | None
    points: list[Shown]

    @property
    def on_front(self) -> bool:
        return any(shown.on_front for shown in self.points)


def rows(search: Search) -> list[Row]:
    """In the order of the plan. Three queries."""
    evidence = Evidence.of(search)
    best = front([*evidence.parent, *(point for points in evidence.measured.values() for point in points)])
    return [_row(search, evidence, index, best) for index in range(len(evidence.recipes))]


def _row(search: Search, evidence: Evidence, index: int, best: Sequence[Point]) -> Row:
    recipe, job = evidence.recipes[index], evidence.jobs.get(index)
    state, note = _state(search, evidence, recipe, job)
    return Row(
        recipe=recipe,
        words=in_words(recipe),
        state=state,
        note=note,
        job=job,
        variant=evidence.made.get(job.pk) if job else None,
        points=[
            Shown(point=point, on_front=point in best) for point in evidence.measured.get(recipe.digest, [])
        ],
    )


def _state(search: Search, evidence: Evidence, recipe: Recipe, job: Job | None) -> tuple[str, str]:
    if job is not None:
        return job.state, job.message if job.state == "failed" else ""
    ends = Ends.of(evidence.recipes)
    if part := pruned(recipe, evidence.measured, parent=evidence.parent, ends=ends):
        named = next(one for one in evidence.recipes if one.digest == part)
        showed = "alone was measured worse" if evidence.measured[part] else "came to nothing"
        return "skipped", f"{in_words(named)} {showed}."
    if search.state != SearchState.RUNNING:
        return "skipped", "The search ended before."
    return "pending", ""


def in_words(recipe: Recipe) -> str:
    """Such as `onnx-graph (onnxslim) + fp16`: the tool is said where it is not the usual one."""
    return " + ".join(map(_step_in_words, recipe.steps))


def _step_in_words(step: Step) -> str:
    tool = step.params.get("tool", "onnxruntime")
    return step.technique if tool == "onnxruntime" else f"{step.technique} ({tool})"
