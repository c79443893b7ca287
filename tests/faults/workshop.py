"""Jobs to disturb: one small registered model with an evaluation set, and what is true of its jobs afterwards."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from django.db import transaction

from controlplane.accounts.access import Actor
from controlplane.registry import services as registry
from controlplane.registry.models import Dataset, Variant, Version
from optimizer import services
from optimizer.domain.jobs import TERMINAL, JobState
from optimizer.domain.recipe import Recipe, Step
from optimizer.models import Job, JobEvent
from tests import factories
from tests.faults.waiting import until
from tests.optimizer import onnx_models

JOB_WITHIN_S = 40
ITEMS = 64


@dataclass(frozen=True, kw_only=True)
class Workshop:
    actor: Actor
    version: Version
    evaluation_set: Dataset

    @classmethod
    def open(
        cls, folder: Path, *, name: str = "small", actor: Actor | None = None, seed: int = 0
    ) -> "Workshop":
        """Registers a small classifier with convolutions as a user would."""
        actor = actor or factories.member(factories.team())
        path = folder / "model.onnx"
        signature = onnx_models.cnn(path, seed=seed)
        version = registry.register_with_version(
            actor, name=name, chunks=[path.read_bytes()], filename=path.name
        )
        shape = signature["inputs"][0]["shape"][1:]
        images = np.random.default_rng(0).standard_normal((ITEMS, *shape)).astype(np.float32)
        archive = io.BytesIO()
        arrays: dict[str, Any] = {signature["inputs"][0]["name"]: images}
        np.savez(archive, **arrays)
        evaluation_set = registry.add_dataset(
            actor,
            version.model,
            name="images",
            role="evaluation",
            version=version,
            chunks=[archive.getvalue()],
        )
        return cls(actor=actor, version=version, evaluation_set=evaluation_set)

    def queue(self, technique: str, *, to: str = "optimize.cpu", **params: Any) -> Job:
        """A new job, through the product's own verb. `to` is the queue of a worker that has it to itself."""
        with transaction.atomic():
            job, new = services.optimize(
                self.actor,
                self.version.variants.get(number=0),
                recipe=Recipe(steps=(Step(technique=technique, params=params),)),
                evaluation_set=self.evaluation_set,
            )
            assert new
            Job.objects.filter(pk=job.pk).update(queue=to)
        return job


def look(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


def when(job: Job, *states: JobState, within_s: float = JOB_WITHIN_S) -> Job:
    """The job once it is in one of the states. AssertionError with its history if it ends elsewhere."""

    def there() -> Job | None:
        seen = look(job)
        assert seen.state in states or seen.state not in TERMINAL, f"{seen.state}: {history(job)}"
        return seen if seen.state in states else None

    found = until(there, within_s=within_s, what=f"job {job.pk} becoming {' or '.join(states)}")
    assert found is not None
    return found


def says(job: Job, message: str, *, within_s: float = JOB_WITHIN_S) -> JobEvent:
    """Waits for a line of the job's log."""
    found = until(
        lambda: list(JobEvent.objects.filter(job=job, message__startswith=message)[:1]),
        within_s=within_s,
        what=f"job {job.pk} saying “{message}” in {history(job)}",
    )
    return found[0]


def history(job: Job, **only: Any) -> list[str]:
    return list(JobEvent.objects.filter(job=job, **only).values_list("message", flat=True))


def effects(job: Job) -> int:
    return Variant.objects.filter(job_id=job.pk).count()


def assert_one_effect(job: Job) -> None:
    seen = look(job)
    assert seen.state == JobState.SUCCEEDED, history(job)
    assert effects(job) == 1
    assert Variant.objects.get(job_id=job.pk).reports.get().data["verdict"]


def starts(job: Job) -> list[str]:
    """Where its attempts ran, in order."""
    return [
        message.rpartition(" ")[2].rstrip(".")
        for message in history(job, message__regex="^Attempt . started")
    ]


def assert_tidy(scratch: Path, jobs: Iterable[Job]) -> None:
    """Their folders are gone, or going: an attempt removes its own after its last write."""
    own = [f"job-{job.pk}-*" for job in jobs]
    until(
        lambda: not [path for name in own for path in scratch.glob(name)],
        within_s=10,
        what="the removal of scratch folders",
    )
