"""One attempt at a job: verify the input, run the recipe step by step, measure, store, finish.

Everything that touches a model runs in a sandboxed child; this process only watches it, renews its hold and
writes rows. Steps: fetch, one per technique, measure, store.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction

from controlplane.accounts import access, audit
from controlplane.core import storage
from controlplane.core.errors import Integrity, SlipwayError
from controlplane.core.sandbox import Child, Limits
from controlplane.registry import artifacts
from controlplane.registry import services as registry
from controlplane.registry.gate import Gate
from controlplane.registry.models import Dataset, Variant
from optimizer import gating, transitions
from optimizer.domain.jobs import MEASURE_WALL_S, FailureReason, JobState, repeats
from optimizer.models import Job
from optimizer.techniques import TECHNIQUES
from optimizer.transitions import LeaseLost
from optimizer.worker import scratch
from optimizer.worker.hold import Cancelled, Hold, Stopped
from optimizer.worker.scratch import Scratch

log = structlog.get_logger(__name__)

POLL_S = 0.1
HEARD_AT_ONCE = 500
SEED = 20261124


class StepFailed(Exception):
    """The child ended without a result: why, and the sentence that the page shows."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, kw_only=True)
class Inputs:
    parent: Path
    evaluation: Path | None
    calibration: Path | None

    @property
    def paths(self) -> list[Path]:
        """What the sandbox may read beside its scratch folder."""
        return [path for path in (self.parent, self.evaluation, self.calibration) if path is not None]


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
        "evaluation_set__artifact",
        "calibration_set__artifact",
    ).get(pk=job_id)
    try:
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
        return _end(hold, partial(_failed, job, hold.claim, failure))
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


def _give_up(hold: Hold, reason: FailureReason, message: str) -> str | None:
    return _end(hold, lambda: transitions.fail(hold.claim, reason=reason, message=message))


def _failed(job: Job, claim: transitions.Claim, failure: StepFailed) -> str:
    """A model that keeps crashing what builds it is put away with the same commit."""
    with transaction.atomic():
        state = transitions.fail(claim, reason=failure.reason, message=failure.message)
        crashed = state == JobState.FAILED and failure.reason == FailureReason.CRASHED
        if crashed and repeats(failure.reason, times=transitions.ended_for(job.pk, failure.reason)):
            registry.quarantine(job.version, reason=failure.message)
    return state


def _end(hold: Hold, write: Callable[[], str]) -> str | None:
    """The last words, then the move; None if the job was no longer ours."""
    try:
        with suppress(Cancelled):
            hold.flush()
        return hold.persist(write)
    except LeaseLost:
        return None


def _work(job: Job, *, hold: Hold, own: Scratch) -> str:
    steps, folder = job.recipe, own.work
    count = len(steps) + 3
    hold.step("Check the input", index=1, count=count)
    inputs = _tended(hold, lambda: _verified_inputs(job, own))
    artifact, provenance, fitted_to = inputs.parent, [], set[int]()
    precision = job.parent.precision
    for index, step in enumerate(steps, start=2):
        hold.step(TECHNIQUES.rows()[step["technique"]].label, index=index, count=count)
        output = folder / f"{index}-{step['technique']}.onnx"
        made = _technique(
            job, step, inputs=inputs, artifact=artifact, output=output, hold=hold, folder=folder
        )
        artifact, precision = _plain_file(output), made["precision"]
        provenance.append(made["provenance"] | step)
        fitted_to.update(made["evaluation_items"])
    hold.step("Measure against the parent", index=count - 1, count=count)
    report = _measure(
        job, inputs=inputs, artifact=artifact, fitted_to=sorted(fitted_to), hold=hold, folder=folder
    )
    hold.step("Store the variant", index=count, count=count)
    hold.flush()
    blob = _tended(hold, lambda: storage.put_file(artifact))
    return hold.persist(
        lambda: _finish(job, hold=hold, blob=blob, precision=precision, provenance=provenance, report=report)
    )


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
    return Inputs(parent=parent, evaluation=evaluation, calibration=path(job.calibration_set) or evaluation)


def _technique(
    job: Job,
    step: dict[str, Any],
    *,
    inputs: Inputs,
    artifact: Path,
    output: Path,
    hold: Hold,
    folder: Path,
) -> dict[str, Any]:
    spec = {
        "technique": step["technique"],
        "params": step["params"],
        "input_path": str(artifact),
        "output_path": str(output),
        "calibration_npz": str(inputs.calibration) if inputs.calibration else None,
        "evaluation_npz": str(inputs.evaluation) if inputs.evaluation else None,
        "signature": job.parent.signature,
        "seed": SEED,
    }
    return supervise(
        entry="optimizer.techniques.child:run",
        spec=spec,
        readable=inputs.paths,
        wall_s=settings.ENVIRONMENT.technique_wall_s,
        hold=hold,
        folder=folder,
    )


def _measure(
    job: Job, *, inputs: Inputs, artifact: Path, fitted_to: list[int], hold: Hold, folder: Path
) -> dict[str, Any]:
    spec = {
        "parent_path": str(inputs.parent),
        "variant_path": str(artifact),
        "signature": job.parent.signature,
        "evaluation_npz": str(inputs.evaluation) if inputs.evaluation else None,
        "fitted_to": fitted_to,
        "techniques": [step["technique"] for step in job.recipe],
        "threads": 1,
        "budget_s": settings.ENVIRONMENT.measure_budget_s,
        "policy": gating.policy_of(Gate.from_json(job.version.model.gate)).to_json(),
        "seed": SEED,
    }
    return supervise(
        entry="optimizer.evaluation.child:evaluate",
        spec=spec,
        readable=inputs.paths,
        wall_s=MEASURE_WALL_S,
        hold=hold,
        folder=folder,
    )


def supervise(
    *, entry: str, spec: dict[str, Any], readable: Sequence[Path], wall_s: float, hold: Hold, folder: Path
) -> dict[str, Any]:
    """Runs a child to its end, tending the hold meanwhile. Raises StepFailed, LeaseLost or Cancelled."""
    limits = Limits(
        memory_bytes=settings.ENVIRONMENT.job_memory_bytes,
        cpu_s=int(wall_s),
        wall_s=wall_s,
        file_bytes=8 * 1024**3,
        processes=256,
    )
    with Child.start(
        entry=entry, spec=spec, scratch=folder, limits=limits, readable=readable, held_until=hold.until
    ) as child:
        while not child.finished:
            _hear_all(child, hold)
            hold.tend()
            child.hold_until(hold.until)
        outcome = child.outcome()
    if outcome.reason == "abandoned":
        late = "The worker could not renew its hold on the job in time, so this step was stopped."
        raise StepFailed(FailureReason.ERROR, late)
    if outcome.result is None:
        raise StepFailed(FailureReason(outcome.reason), outcome.detail)
    return outcome.result


def _hear_all(child: Child, hold: Hold) -> None:
    """What the child has said by now, so that it is written in one go; but never so much that the hold waits."""
    message = child.poll(POLL_S)
    for _ in range(HEARD_AT_ONCE):
        if message is None:
            return
        _hear(message, hold)
        message = child.poll(0)


def _hear(message: dict[str, Any], hold: Hold) -> None:
    match message["kind"]:
        case "log":
            hold.say(message["message"], level=message.get("level", "info"))
        case "step":
            hold.say(message["name"])
        case "progress":
            hold.progress(done=message["done"], total=message["total"])


def _finish(
    job: Job,
    *,
    hold: Hold,
    blob: storage.Blob,
    precision: str,
    provenance: list[dict[str, Any]],
    report: dict[str, Any],
) -> str:
    """The job's one effect: variant, report, audit and the move to succeeded, in one transaction. The
    move comes first: it is what the fence guards.

    May be repeated: what landed before, though its reply was lost, is found and not done again.
    """
    if transitions.succeeded(hold.claim):
        return JobState.SUCCEEDED
    with transaction.atomic():
        transitions.succeed(hold.claim, message=report["sentence"])
        variant = registry.add_variant(
            parent=job.parent,
            blob=blob,
            technique="+".join(step["technique"] for step in job.recipe),
            precision=precision,
            provenance={"steps": provenance, "recipe": job.recipe},
            job_id=job.pk,
            report=report,
        )
        audit.record(
            access.system(job.team),
            "optimized",
            object_type="variant",
            object_id=variant.pk,
            object_name=str(variant),
            object_url=variant.get_absolute_url(),
            details={"job": job.pk, "verdict": report["verdict"]},
        )
    return JobState.SUCCEEDED
