"""One attempt at a job: verify the input, run the recipe step by step, measure, store, finish.

Everything that touches a model runs in a sandboxed child; this process only watches it, renews its hold and
writes rows. Steps: fetch, one per technique, measure, store.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import InterfaceError, OperationalError

from controlplane.core import storage
from controlplane.core.errors import Conflict, Integrity, SlipwayError
from controlplane.registry import artifacts, trust
from controlplane.registry.engines import Engine, Gpu
from controlplane.registry.gate import Gate
from controlplane.registry.models import Dataset, Variant
from optimizer import gating, measuring, transitions
from optimizer.domain.jobs import MEASURE_WALL_S, FailureReason
from optimizer.models import Job
from optimizer.queues import Needs
from optimizer.techniques import TECHNIQUES, parameters
from optimizer.toolchains import CUDA
from optimizer.transitions import LeaseLost
from optimizer.workbench.formats import FORMATS, opened_by
from optimizer.worker import caches, effects, gpus, hardware, scratch
from optimizer.worker.hold import Cancelled, Hold, StepFailed, Stopped
from optimizer.worker.scratch import Scratch
from optimizer.worker.supervision import POLL_S, interpreter, supervise

log = structlog.get_logger(__name__)

SEED = 20261124


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """`variant`: what is measured again."""

    parent: Path
    variant: Path | None
    evaluation: Path | None
    calibration: Path | None

    @property
    def paths(self) -> list[Path]:
        """What the sandbox may read beside its scratch folder."""
        paths = (self.parent, self.variant, self.evaluation, self.calibration)
        return [path for path in paths if path is not None]


@dataclass(frozen=True, kw_only=True)
class Made:
    """A file between two steps."""

    path: Path
    format: str
    precision: str


def run(job_id: int, *, owner: str, message_id: str = "") -> str | None:
    """Works on the job if it can be claimed. Returns the state reached, None if there was nothing to do.

    A lost lease ends the attempt without a trace of it in the database. A database that is away for longer
    than that raises its error, and the lease runs out.
    """
    claim = transitions.claim(job_id, owner=owner, message_id=message_id)
    if claim is None:
        return None
    hold = Hold(claim=claim)
    job = Job.objects.select_related(
        "team",
        "created_by",
        "version__model",
        "parent__artifact",
        "measures__artifact",
        "measures__version__model",
        "evaluation_set__artifact",
        "calibration_set__artifact",
    ).get(pk=job_id)
    try:
        _refuse_untrusted(job)
        with scratch.folder(claim) as own:
            return _work(job, hold=hold, own=own)
    except LeaseLost:
        log.warning("lease_lost", job=job_id, fence=claim.fence)
        return None
    except Cancelled:
        return _give_up(hold, FailureReason.CANCELLED_BY_LIMIT, "Cancelled.")
    except Stopped:
        return _end(hold, lambda: transitions.hand_back(claim))
    except Integrity as error:
        artifacts.mark_damaged(sha256=str(error.extra.get("sha256", "")))
        return _give_up(hold, FailureReason.INTEGRITY, f"{error.title} {error.detail}")
    except StepFailed as failure:
        return _end(hold, partial(effects.fail, job, hold.claim, failure))
    except SlipwayError as error:
        return _give_up(hold, FailureReason.ERROR, f"{error.title} {error.detail}".strip())
    except SoftTimeLimitExceeded:
        return _give_up(hold, FailureReason.TIMEOUT, "It took longer than all steps of a recipe may take.")
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        log.exception("attempt_failed", job=job_id, attempt=claim.attempt)
        return _give_up(
            hold, FailureReason.ERROR, "Something went wrong on our side; the worker's log says what."
        )


def _refuse_untrusted(job: Job) -> None:
    """The operator may have taken the permission back while the job waited. Raises StepFailed."""
    try:
        trust.refuse_untrusted(job.parent)
    except Conflict as error:
        raise StepFailed(FailureReason.REFUSED, f"{error.title} {error.detail}") from error


def _give_up(hold: Hold, reason: FailureReason, message: str) -> str | None:
    return _end(hold, lambda: transitions.fail(hold.claim, reason=reason, message=message))


def _end(hold: Hold, write: Callable[[], str]) -> str | None:
    """The last words, then the move; None if the job was no longer ours."""
    try:
        with suppress(Cancelled):
            hold.flush()
        return hold.persist(write)
    except LeaseLost:
        return None


def _work(job: Job, *, hold: Hold, own: Scratch) -> str:
    if job.measures is not None:
        return _measure_again(job, job.measures, hold=hold, own=own)
    steps, folder = job.recipe, own.work
    count = len(steps) + 3
    hold.step("Check the input", index=1, count=count)
    inputs = _tended(hold, lambda: _verified_inputs(job, own))
    made = Made(path=inputs.parent, format=job.parent.format, precision=job.parent.precision)
    stages, provenance, fitted_to = [made], [], set[int]()
    for index, step in enumerate(steps, start=2):
        hold.step(TECHNIQUES.rows()[step["technique"]].label, index=index, count=count)
        made, how = _technique(
            job, step, inputs=inputs, stage=stages[-1], index=index, hold=hold, folder=folder
        )
        stages.append(made)
        provenance.append(how["provenance"] | step)
        fitted_to.update(how["evaluation_items"])
    hold.step("Measure against the parent", index=count - 1, count=count)
    again = measuring.note(
        seed=SEED,
        evaluation_set=job.evaluation_set,
        answers=job.version.model.answers,
        fitted_to=sorted(fitted_to),
        gpu=(hardware.served_gpu() or "") if _waited_for_a_gpu(job) else "",
    )
    keys = [step["technique"] for step in steps]
    report = _measure(
        job,
        inputs=inputs,
        stages=stages,
        techniques=keys,
        engine=Engine.of({"steps": provenance}),
        again=again,
        hold=hold,
        folder=folder,
    )
    hold.step("Store the variant", index=count, count=count)
    hold.flush()
    blob = _tended(hold, lambda: storage.put_file(made.path))
    return hold.persist(
        lambda: effects.finish(
            job,
            hold=hold,
            blob=blob,
            format=made.format,
            precision=made.precision,
            provenance=provenance,
            report=report,
        )
    )


def _measure_again(job: Job, variant: Variant, *, hold: Hold, own: Scratch) -> str:
    """Like the last steps of the job that made it, on the stored bytes."""
    hold.step("Check the input", index=1, count=3)
    inputs = _tended(hold, lambda: _verified_inputs(job, own))
    assert inputs.variant is not None
    stages = [
        Made(path=path, format=row.format, precision=row.precision)
        for path, row in ((inputs.parent, job.parent), (inputs.variant, variant))
    ]
    hold.step("Measure against the parent", index=2, count=3)
    report = _measure(
        job,
        inputs=inputs,
        stages=stages,
        techniques=variant.technique.split("+"),
        engine=Engine.of(variant.provenance),
        again=measuring.first_note(variant),
        hold=hold,
        folder=own.work,
    )
    hold.step("Keep the report", index=3, count=3)
    hold.flush()
    return hold.persist(lambda: effects.finish_again(job, variant, hold=hold, report=report))


def _tended[Result](hold: Hold, work: Callable[[], Result]) -> Result:
    """Does `work`, which reads or writes much and asks no database, while this thread keeps the hold."""
    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(work)
        while not wait([doing], timeout=POLL_S).done:
            hold.tend()
    return doing.result()


def _plain_file(output: Path) -> Path:
    """What the child left where it was told to. What it *says* about paths is not believed, and a link it left
    is not followed: this process may read more than it."""
    if output.is_symlink() or not output.is_file():
        raise StepFailed(FailureReason.ERROR, "The technique left no file where its result belongs.")
    return output


def _verified_inputs(job: Job, own: Scratch) -> Inputs:
    def path(row: Variant | Dataset | None) -> Path | None:
        return own.pin(storage.path(row.artifact.sha256, verify=True)) if row is not None else None

    parent = path(job.parent)
    assert parent is not None
    evaluation = path(job.evaluation_set)
    return Inputs(
        parent=parent,
        variant=path(job.measures),
        evaluation=evaluation,
        calibration=path(job.calibration_set) or evaluation,
    )


def _technique(
    job: Job,
    step: dict[str, Any],
    *,
    inputs: Inputs,
    stage: Made,
    index: int,
    hold: Hold,
    folder: Path,
) -> tuple[Made, dict[str, Any]]:
    """What the step made of `stage`, and what its child says of that."""
    used = TECHNIQUES.load(step["technique"])
    format = FORMATS[used.gives.format]
    output = folder / f"{index}-{used.key}{format.suffix}"
    kept = scratch.kept(job.pk) if used.resumes else None
    toolchain = used.needs(parameters(used.key, step["params"]), format=stage.format)
    spec = {
        "technique": used.key,
        "params": step["params"],
        "input_path": str(stage.path),
        "input_format": stage.format,
        "output_path": str(output),
        "calibration_npz": str(inputs.calibration) if inputs.calibration else None,
        "evaluation_npz": str(inputs.evaluation) if inputs.evaluation else None,
        "signature": job.parent.signature,
        "policy": _policy(job),
        "metric": job.evaluation_set.metric if job.evaluation_set else "",
        "answers": job.version.model.answers,
        "seed": SEED,
        "kept": str(kept) if kept else None,
    }
    with caches.lent(used, toolchain=toolchain, folder=folder) as cache:
        how = supervise(
            entry="optimizer.techniques.child:run",
            spec=spec | {"cache": str(cache) if cache else None},
            readable=inputs.paths,
            writable=[kept] if kept else [],
            wall_s=settings.ENVIRONMENT.technique_wall_s,
            hold=hold,
            folder=folder,
            toolchain=toolchain,
            stop_grace_s=used.stop_grace_s,
        )
    if format.opener is None and (gpu := gpus.served()):
        how["provenance"]["gpu"] = {"name": gpu.name, "driver": gpus.found().driver}
    return Made(path=_plain_file(output), format=format.key, precision=how["precision"]), how


def _policy(job: Job) -> dict[str, float]:
    """What the gate of its model asks, now."""
    return gating.policy_of(Gate.from_json(job.version.model.gate)).to_json()


def _measure(
    job: Job,
    *,
    inputs: Inputs,
    stages: list[Made],
    techniques: list[str],
    engine: Engine | None,
    again: Mapping[str, Any],
    hold: Hold,
    folder: Path,
) -> dict[str, Any]:
    """The last of the `stages` against the first. Where it does not run here, the last step between them that does
    answers for it; the parent itself would show nothing. `engine` is what is said of the last, where it is one. `again`
    says what the report needs to be made once more, and stays in it."""
    parent, *between, made = stages
    runs_here = FORMATS[made.format].opener is not None
    wants_gpu = not runs_here or _waited_for_a_gpu(job)
    no_gpu = _why_not_on_gpu(parent.format, made.format, engine) if wants_gpu else ""
    gpu = wants_gpu and not no_gpu
    stand_in = next((stage for stage in reversed(between) if FORMATS[stage.format].opener), None)
    if runs_here or gpu:
        stand_in = None
    exported = next((stage.path for stage in between if stage.format == "onnx"), None)
    toolchain, parents = (CUDA, None) if gpu else opened_by(parent.format, made.format)
    python = interpreter(parents)
    spec = {
        "parent_path": str(parent.path),
        "parent_format": parent.format,
        "parent_python": str(python) if python else None,
        "variant_path": str(made.path),
        "variant_format": made.format,
        "stand_in_path": str(stand_in.path) if stand_in else None,
        "stand_in_format": stand_in.format if stand_in else None,
        "exported_path": str(exported) if exported else None,
        "gpu": gpu,
        "no_gpu": "" if runs_here else no_gpu,
        "largest_batch": engine.batches[1] if engine else None,
        "signature": job.parent.signature,
        "evaluation_npz": str(inputs.evaluation) if inputs.evaluation else None,
        "metric": job.evaluation_set.metric if job.evaluation_set else "",
        "answers": again.get("answers", {}),
        "fitted_to": again["fitted_to"],
        "techniques": techniques,
        "threads": 1,
        "budget_s": settings.ENVIRONMENT.measure_budget_s,
        "policy": _policy(job),
        "seed": again["seed"],
    }
    report = supervise(
        entry="optimizer.evaluation.child:evaluate",
        spec=spec,
        readable=[*inputs.paths, *([python.parents[1]] if python else [])],
        wall_s=MEASURE_WALL_S,
        hold=hold,
        folder=folder,
        toolchain=toolchain,
    )
    return report | {measuring.AGAIN: dict(again)}


def _waited_for_a_gpu(job: Job) -> bool:
    needs = Needs.read(job.queue)
    return needs is not None and bool(needs.gpu)


def _why_not_on_gpu(parent_format: str, made_format: str, engine: Engine | None) -> str:
    served = gpus.served()
    return measuring.why_not_on_gpu(
        parent_format,
        made_format,
        engine,
        gpu=Gpu(capability=served.capability or "") if served else None,
        cuda=hardware.toolchains().get(CUDA),
    )
