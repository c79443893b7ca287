"""A model's ledger: version by kind of variant, each cell with its evidence and why that may no longer hold.

A kind is technique, precision, what runs it, and the hardware it was measured on. Evidence is stale where no worker has
the tools that made it, or the hardware that measured it, any more: building it again could come out otherwise; an
engine also where the fleet has a GPU that it was not built for, or another driver on the GPU that it was built or timed
on. Refused: calling evidence stale by its age; a number does not change by lying about.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

from django.db.models import Prefetch, QuerySet

from controlplane.accounts.access import Actor
from controlplane.accounts.models import Role
from controlplane.core.errors import Conflict
from controlplane.registry import reports
from controlplane.registry import selectors as registry
from controlplane.registry.engines import Engine
from controlplane.registry.models import Report, Variant, Version
from optimizer import services
from optimizer.domain.recipe import Recipe, Step
from optimizer.fleet import OFFLINE_AFTER
from optimizer.models import Job, Worker
from optimizer.techniques import TECHNIQUES
from optimizer.techniques.port import Hardware
from optimizer.techniques.tensorrt.technique import AHEAD
from optimizer.workbench.formats import FORMATS

CHUNK = 100
UNTELLING = frozenset({"python", "numpy"})
"""Announced by workers, and nothing that a result or its speed hangs on."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """What the workers that were heard of late have: versions by package, names of processors, compute capabilities of
    GPUs, and versions of the driver by the GPU's name."""

    versions: Mapping[str, frozenset[str]]
    processors: frozenset[str]
    capabilities: frozenset[str] = frozenset()
    drivers: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, workers: Iterable[Worker]) -> Self:
        versions: dict[str, set[str]] = {}
        processors, capabilities = set(), set[str]()
        drivers: dict[str, set[str]] = {}
        for worker in workers:
            hardware = worker.hardware
            for announced in (worker.versions, *hardware.get("toolchains", {}).values()):
                for name, number in announced.items():
                    versions.setdefault(name, set()).add(number)
            processors.add(hardware.get("cpu", ""))
            capabilities |= Hardware.from_json(hardware).capabilities
            for gpu in hardware.get("gpus", ()):
                drivers.setdefault(gpu["name"], set()).add(hardware.get("driver", ""))
        return cls(
            versions={
                name: frozenset(numbers) for name, numbers in versions.items() if name not in UNTELLING
            },
            processors=frozenset(processors - {""}),
            capabilities=frozenset(capabilities),
            drivers={name: frozenset(numbers - {""}) for name, numbers in drivers.items()},
        )


@dataclass(frozen=True, kw_only=True, order=True)
class Column:
    """A kind of variant. `hardware` is empty where nothing was measured."""

    technique: str
    precision: str
    software: str
    hardware: str

    @property
    def label(self) -> str:
        rows = TECHNIQUES.rows()
        return " + ".join(rows[key].label if key in rows else key for key in self.technique.split("+"))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The newest variant of its kind. `stale`: sentences, none while its evidence holds; `earlier` are the others."""

    variant: Variant
    report: Report | None
    stale: tuple[str, ...]
    earlier: int


@dataclass(frozen=True, kw_only=True)
class Line:
    version: Version
    cells: Mapping[Column, Cell]


def fleet(*, now: datetime) -> Fleet:
    """One query."""
    return Fleet.of(Worker.objects.filter(heartbeat_at__gt=now - OFFLINE_AFTER))


def versions(actor: Actor, model: str) -> QuerySet[Version]:
    """Newest first, with what was made of each and its evidence. Three queries a page."""
    made = Variant.objects.exclude(technique="").select_related("version__model", "artifact")
    newest = made.order_by("-number").prefetch_related("reports")
    return (
        registry.versions(actor)
        .filter(model__name=model)
        .prefetch_related(Prefetch("variants", queryset=newest, to_attr="made"))
    )


def line(version: Version, fleet: Fleet) -> Line:
    """Of a version as `versions` fetches it."""
    kinds: dict[Column, list[Variant]] = {}
    for variant in version.made:  # type: ignore[attr-defined]
        kinds.setdefault(_column(variant), []).append(variant)
    cells = {
        column: Cell(
            variant=newest,
            report=_report(newest),
            stale=stale(newest.provenance, _data(newest), fleet),
            earlier=len(earlier),
        )
        for column, (newest, *earlier) in kinds.items()
    }
    return Line(version=version, cells=cells)


def stale(provenance: Mapping[str, Any], report: Mapping[str, Any], fleet: Fleet) -> tuple[str, ...]:
    """Why the evidence may no longer hold. Of a fleet that nobody was heard of nothing can be said. Pure."""
    machine = report.get("machine") or {}
    steps = provenance.get("steps") or ()
    used = [("Made", step.get("versions") or {}) for step in steps]
    used.append(("Measured", machine.get("versions") or {}))
    reasons = [
        f"{what} with {name} {number}; workers now have {', '.join(sorted(fleet.versions[name]))}."
        for what, versions in used
        for name, number in versions.items()
        if name in fleet.versions and number and number not in fleet.versions[name]
    ]
    used_on = reports.hardware(report)
    owned = fleet.drivers.keys() if machine.get("gpu") else fleet.processors
    if used_on and fleet.processors and used_on not in owned:
        reasons.append(f"Measured on {used_on}, which no worker has now.")
    engine = Engine.of(provenance)
    reasons.extend(_other_drivers(steps, report, fleet) if engine else ())
    missing = (
        sorted(fleet.capabilities & AHEAD - set(engine.capabilities)) if engine and engine.built_ahead else ()
    )
    if engine and missing:
        reasons.append(
            f"Built for compute capability {', '.join(engine.capabilities)}; the fleet also has {', '.join(missing)}."
        )
    return tuple(dict.fromkeys(reasons))


def _other_drivers(
    steps: Iterable[Mapping[str, Any]], report: Mapping[str, Any], fleet: Fleet
) -> Iterator[str]:
    """Of the GPUs that an engine was built and timed on: the driver has a hand in both."""
    timed = ((report.get("method") or {}).get("clocks_after") or {}).get("gpus") or ()
    seen = [("Built", step["gpu"]) for step in steps if step.get("gpu")] + [
        ("Measured", gpu) for gpu in timed
    ]
    for what, gpu in seen:
        now = fleet.drivers.get(gpu["name"])
        if now and gpu["driver"] and gpu["driver"] not in now:
            yield (
                f"{what} on {gpu['name']} with driver {gpu['driver']}; workers with that GPU now have "
                f"{', '.join(sorted(now))}."
            )


def rebuild(actor: Actor, model: str, *, now: datetime) -> tuple[list[Job], list[str]]:
    """Queues again the jobs of what is stale, engines for every GPU type of the fleet; what is queued already stays.
    Returns the jobs, and a sentence for each
    that cannot be built again; neither where nothing is stale. Raises TooMany where the queue is full."""
    actor.require(Role.ENGINEER)
    current = fleet(now=now)
    cells = [
        cell
        for version in versions(actor, model).iterator(chunk_size=CHUNK)
        for cell in line(version, current).cells.values()
        if cell.stale
    ]
    known = Job.objects.in_team(actor.team).in_bulk([cell.variant.job_id for cell in cells])
    queued, refused = [], []
    for cell in cells:
        job = known.get(cell.variant.job_id or 0)
        if job is None:
            refused.append(f"{cell.variant}: its job is no longer kept.")
            continue
        try:
            queued.append(_again(actor, job, current))
        except Conflict as error:
            refused.append(f"{cell.variant}: {error.title}")
    return queued, refused


def _again(actor: Actor, job: Job, fleet: Fleet) -> Job:
    before = Recipe.from_json(job.recipe)
    after = _for_all_gpus(before, fleet)
    if after == before:
        return services.retry_job(actor, job)[0]
    wider, _ = services.optimize(
        actor,
        job.parent,
        recipe=after,
        evaluation_set=job.evaluation_set,
        calibration_set=job.calibration_set,
        priority=job.priority,
        gpu=services.gpu_chosen(job, before),
        idempotency_key=f"rebuild-{job.pk}-{after.digest[:16]}",
    )
    return wider


def _for_all_gpus(recipe: Recipe, fleet: Fleet) -> Recipe:
    """The same, with its engine built for what it was built for and for what the fleet has."""
    owned = fleet.capabilities & AHEAD
    return Recipe(
        steps=tuple(_widened(step, owned) if _builds_ahead(step) else step for step in recipe.steps)
    )


def _builds_ahead(step: Step) -> bool:
    """TensorRT itself builds for one GPU at a time, where that is."""
    return step.technique == "tensorrt" and step.params.get("builder", "rtx") == "rtx"


def _widened(step: Step, owned: frozenset[str]) -> Step:
    wanted = owned.union(step.params["capabilities"])
    return replace(step, params={**step.params, "capabilities": sorted(wanted, key=float)})


def columns(lines: Iterable[Line]) -> list[Column]:
    return sorted({column for line in lines for column in line.cells})


def _report(variant: Variant) -> Report | None:
    return next(iter(variant.reports.all()), None)


def _data(variant: Variant) -> Mapping[str, Any]:
    report = _report(variant)
    return report.data if report else {}


def _column(variant: Variant) -> Column:
    data = _data(variant)
    known = FORMATS.get(variant.format)
    return Column(
        technique=variant.technique,
        precision=variant.precision,
        software=known.runs_by.partition(",")[0] or known.label if known else variant.format,
        hardware=reports.hardware(data) if data.get("timings") else "",
    )
