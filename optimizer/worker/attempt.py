"""One attempt at a job: verify the input, run the recipe step by step, measure, store, finish.

Everything that touches a model runs in a sandboxed child; this process only watches it, renews its hold and
writes rows. Steps: fetch, one per technique, measure, store.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction

from controlplane.accounts import access, audit
from controlplane.core import storage
from controlplane.core.errors import Integrity
from controlplane.core.sandbox import Child, Limits
from controlplane.registry import services as registry
from controlplane.registry.models import Dataset, Variant
from optimizer import transitions
from optimizer.domain.jobs import FailureReason
from optimizer.models import Job
from optimizer.techniques import TECHNIQUES
from optimizer.transitions import LeaseLost
from optimizer.worker.hold import Cancelled, Hold

log = structlog.get_logger(__name__)

POLL_S = 0.1
TECHNIQUE_WALL_S = 1800.0
MEASURE_WALL_S = 900.0
MEASURE_BUDGET_S = 20.0
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


def run(job_id: int, *, owner: str) -> str | None:
    """Works on the job if it can be claimed. Returns the state reached, None if there was nothing to do.

    A lost lease ends the attempt without a trace of it in the database.
    """
    claim = transitions.claim(job_id, owner=owner)
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
        with _scratch(job_id) as scratch:
            return _work(job, hold=hold, scratch=scratch)
    except LeaseLost:
        log.warning("lease_lost", job=job_id, fence=claim.fence)
        return None
    except Cancelled:
        return _give_up(hold, FailureReason.CANCELLED_BY_LIMIT, "Cancelled.")
    except Integrity as error:
        registry.mark_damaged(sha256=str(error.extra.get("sha256", "")))
        return _give_up(hold, FailureReason.INTEGRITY, f"{error.title} {error.detail}")
    except StepFailed as failure:
        state = _give_up(hold, failure.reason, failure.message)
        if state == "failed" and failure.reason == FailureReason.CRASHED:
            registry.quarantine(job.version, reason=failure.message)
        return state


def _give_up(hold: Hold, reason: FailureReason, message: str) -> str | None:
    try:
        with suppress(Cancelled):
            hold.flush()
        return transitions.fail(hold.claim, reason=reason, message=message)
    except LeaseLost:
        return None


@contextmanager
def _scratch(job_id: int) -> Iterator[Path]:
    """A folder of this attempt's own. What a killed attempt leaves is removed by the next one on this machine."""
    root = Path(settings.ENVIRONMENT.home) / "scratch"
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"job-{job_id}-*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"job-{job_id}-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _work(job: Job, *, hold: Hold, scratch: Path) -> str:
    steps = job.recipe
    count = len(steps) + 3
    hold.step("Check the input", index=1, count=count)
    inputs = _verified_inputs(job)
    artifact, provenance = inputs.parent, []
    precision = job.parent.precision
    for index, step in enumerate(steps, start=2):
        hold.step(TECHNIQUES.rows()[step["technique"]].label, index=index, count=count)
        output = scratch / f"{index}-{step['technique']}.onnx"
        made = _technique(
            job, step, inputs=inputs, artifact=artifact, output=output, hold=hold, scratch=scratch
        )
        artifact, precision = Path(made["output_path"]), made["precision"]
        provenance.append(made["provenance"] | step)
    hold.step("Measure against the parent", index=count - 1, count=count)
    report = _measure(job, inputs=inputs, artifact=artifact, hold=hold, scratch=scratch)
    hold.step("Store the variant", index=count, count=count)
    hold.flush()
    blob = storage.put_file(artifact)
    return _finish(job, hold=hold, blob=blob, precision=precision, provenance=provenance, report=report)


def _verified_inputs(job: Job) -> Inputs:
    def path(row: Variant | Dataset | None) -> Path | None:
        return storage.path(row.artifact.sha256, verify=True) if row is not None else None

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
    scratch: Path,
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
        wall_s=TECHNIQUE_WALL_S,
        hold=hold,
        scratch=scratch,
    )


def _measure(job: Job, *, inputs: Inputs, artifact: Path, hold: Hold, scratch: Path) -> dict[str, Any]:
    spec = {
        "parent_path": str(inputs.parent),
        "variant_path": str(artifact),
        "signature": job.parent.signature,
        "evaluation_npz": str(inputs.evaluation) if inputs.evaluation else None,
        "techniques": [step["technique"] for step in job.recipe],
        "threads": 1,
        "budget_s": MEASURE_BUDGET_S,
        "seed": SEED,
    }
    return supervise(
        entry="optimizer.evaluation.child:evaluate",
        spec=spec,
        readable=inputs.paths,
        wall_s=MEASURE_WALL_S,
        hold=hold,
        scratch=scratch,
    )


def supervise(
    *, entry: str, spec: dict[str, Any], readable: Sequence[Path], wall_s: float, hold: Hold, scratch: Path
) -> dict[str, Any]:
    """Runs a child to its end, tending the hold meanwhile. Raises StepFailed, LeaseLost or Cancelled."""
    limits = Limits(
        memory_bytes=8 * 1024**3, cpu_s=int(wall_s), wall_s=wall_s, file_bytes=8 * 1024**3, processes=256
    )
    with Child.start(entry=entry, spec=spec, scratch=scratch, limits=limits, readable=readable) as child:
        while not child.finished:
            message = child.poll(POLL_S)
            if message is not None:
                _hear(message, hold)
            hold.tend()
        outcome = child.outcome()
    if outcome.result is None:
        raise StepFailed(FailureReason(outcome.reason), outcome.detail)
    return outcome.result


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
    """The job's one effect: variant, report, audit and the move to succeeded, in one transaction."""
    sentence = report["sentence"]
    with transaction.atomic():
        variant = registry.add_variant(
            parent=job.parent,
            blob=blob,
            technique="+".join(step["technique"] for step in job.recipe),
            precision=precision,
            provenance={"steps": provenance, "recipe": job.recipe},
            job_id=job.pk,
            report=report,
        )
        transitions.succeed(hold.claim, message=sentence)
        audit.record(
            access.system(job.team),
            "optimized",
            object_type="variant",
            object_id=variant.pk,
            object_name=str(variant),
            object_url=variant.get_absolute_url(),
            details={"job": job.pk, "verdict": report["verdict"]},
        )
    return "succeeded"
