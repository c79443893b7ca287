"""Training a student to its best weights, in looks that a restart goes on from.

Which examples a step sees follows from the seed and the step's number, so a run that was interrupted ends in the same
weights as one that was not. One thread: such small networks gain nothing from two, and contended ones cost tenfold.
"""

import hashlib
import json
import math
import time
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from optimizer.techniques.distill.material import Answers, Material
from optimizer.techniques.distill.students import Student
from optimizer.techniques.distill.technique import DistillParameters
from optimizer.workbench.journal import Journal
from optimizer.workbench.session import first_line
from optimizer.workbench.signature import Array

BATCH = 64
LOOKS = 40
LOOK_AFTER_S = 60.0
"""More often where steps are slow, so that an interrupted training loses a minute at most."""
AT_ONCE = 256
WEIGHT_DECAY = 1e-2


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What one student learns: from the examples `train`, the teacher's answers weighed with `alpha`."""

    name: str
    train: Array
    alpha: float


@dataclass(frozen=True, kw_only=True)
class Look:
    """On the validation items: the lesson's own loss, and which share is right, or as the teacher says."""

    step: int
    loss: float
    accuracy: float


@dataclass(kw_only=True)
class Progress:
    """All that a checkpoint holds beside the weights."""

    step: int = 0
    best: Look | None = None
    since_best: int = 0
    elapsed_s: float = 0.0
    over: bool = False


@dataclass(frozen=True, kw_only=True)
class School:
    """What all lessons of one technique share."""

    material: Material
    answers: Answers
    params: DistillParameters
    seed: int
    folder: Path
    journal: Journal

    @property
    def measure(self) -> str:
        """Of the validation items: `accuracy` where each has a label, else `agreement` with the teacher."""
        return "accuracy" if (self.material.labels[self.material.validation] >= 0).all() else "agreement"

    @property
    def truth(self) -> Array:
        """Classes of the validation items. The teacher's, where labels are too few to choose a control's best weights
        by, which favors the control."""
        validation = self.material.validation
        classes: Array = self.answers.logits[validation].argmax(axis=1)
        return self.material.labels[validation] if self.measure == "accuracy" else classes

    @property
    def teacher_accuracy(self) -> float | None:
        """None where the teacher is the measure."""
        if self.measure != "accuracy":
            return None
        return float((self.answers.logits[self.material.validation].argmax(axis=1) == self.truth).mean())


@dataclass(kw_only=True)
class Training:
    """One student in one lesson."""

    school: School
    lesson: Lesson
    student: Student
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        params = self.school.params
        self._optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=params.learning_rate, weight_decay=WEIGHT_DECAY
        )
        self._best = deepcopy(self.student.state_dict())
        self._every = max(1, math.ceil(params.steps / LOOKS))
        self._went_on_at = 0.0

    def run(self) -> Look:
        """Leaves the best weights seen in the student. Goes on from its checkpoint where there is one."""
        steps, journal = self.school.params.steps, self.school.journal
        self._went_on_at = time.monotonic()
        if self._resume():
            journal.info(
                f"Resumed the {self.lesson.name} from its checkpoint at step {self.progress.step:,}."
            )
        while not self.progress.over:
            self._step()
            journal.progress(self.progress.step, steps)
            late = time.monotonic() - self._went_on_at > LOOK_AFTER_S
            if self.progress.step % self._every == 0 or self.progress.step == steps or late:
                look = self._look()
                self._save()
                self._tell(look)  # of what is kept: whoever hears it may count on going on from there
        self.student.load_state_dict(self._best)
        assert self.progress.best is not None
        return self.progress.best

    def _step(self) -> None:
        school, step = self.school, self.progress.step
        rng = np.random.default_rng([school.seed, 2, step])
        chosen = self.lesson.train[rng.integers(0, len(self.lesson.train), BATCH)]
        for group in self._optimizer.param_groups:
            group["lr"] = (
                school.params.learning_rate * (1 + math.cos(math.pi * step / school.params.steps)) / 2
            )
        self.student.train()
        loss = self._loss(self._logits(chosen), chosen, school.material.labels[chosen])
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self.progress.step += 1

    def _logits(self, examples: Array) -> torch.Tensor:
        inputs: torch.Tensor = torch.from_numpy(np.ascontiguousarray(self.school.material.inputs(examples)))
        return self.student(inputs)

    def _loss(self, logits: torch.Tensor, examples: Array, classes: Array) -> torch.Tensor:
        """Hinton's: alpha T² KL(teacher/T, student/T) + (1 - alpha) cross-entropy of the labelled among them."""
        alpha, temperature = self.lesson.alpha, self.school.params.temperature
        loss = torch.zeros(())
        if alpha > 0:
            soft = torch.from_numpy(self.school.answers.logits[examples]) / temperature
            divergence = functional.kl_div(
                functional.log_softmax(logits / temperature, dim=1),
                functional.log_softmax(soft, dim=1),
                reduction="batchmean",
                log_target=True,
            )
            loss = loss + alpha * temperature**2 * divergence
        labels = torch.from_numpy(classes)
        known = labels >= 0
        if alpha < 1 and known.any():
            loss = loss + (1 - alpha) * functional.cross_entropy(logits[known], labels[known])
        return loss

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _look(self) -> Look:
        school, progress = self.school, self.progress
        validation = school.material.validation
        self.student.eval()
        parts = [self._logits(validation[at : at + AT_ONCE]) for at in range(0, len(validation), AT_ONCE)]
        logits = torch.cat(parts)
        right = float((logits.argmax(dim=1).numpy() == school.truth).mean())
        loss = float(self._loss(logits, validation, school.truth))
        look = Look(step=progress.step, loss=loss, accuracy=right)
        # Not by accuracy: of few items it moves in steps, and the luckiest look would win.
        improved = progress.best is None or look.loss <= progress.best.loss
        progress.since_best = 0 if improved else progress.since_best + 1
        if improved:
            progress.best, self._best = look, deepcopy(self.student.state_dict())
        now, patience = time.monotonic(), school.params.patience
        progress.elapsed_s += now - self._went_on_at
        self._went_on_at = now
        late = progress.elapsed_s >= 60 * school.params.minutes
        progress.over = progress.step >= school.params.steps or late or 0 < patience <= progress.since_best
        return look

    def _tell(self, look: Look) -> None:
        values = {"loss": look.loss, self.school.measure: look.accuracy}
        self.school.journal.point(self.lesson.name, step=look.step, values=values, last=self.progress.over)

    @property
    def _checkpoint(self) -> Path:
        """Another request never finds it: its name is made of all that decides how the training goes."""
        parts = [
            *(self.lesson.name, self.lesson.alpha, len(self.lesson.train), self.school.seed),
            *(self.school.answers.key, self.school.params.model_dump(mode="json"), torch.__version__),
            *((name, list(weights.shape)) for name, weights in self.student.state_dict().items()),
        ]
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        return self.school.folder / f"checkpoint-{key}.pt"

    def _save(self) -> None:
        whole = self._checkpoint.with_suffix(".part")
        state = {
            "progress": asdict(self.progress),
            "student": self.student.state_dict(),
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
        }
        torch.save(state, whole)
        whole.replace(self._checkpoint)

    def _resume(self) -> bool:
        if not self._checkpoint.exists():
            return False
        try:
            state: dict[str, Any] = torch.load(self._checkpoint, weights_only=True)
        except Exception as error:  # noqa: BLE001  half of a file is an OSError, an empty one an EOFError
            self.school.journal.warning(
                f"The {self.lesson.name} begins anew, its checkpoint cannot be read: {first_line(error)}."
            )
            return False
        self.student.load_state_dict(state["student"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best = state["best"]
        best = state["progress"].pop("best")
        self.progress = Progress(**state["progress"], best=Look(**best))
        return True


def settle(seed: int) -> None:
    """The same bytes from the same request."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
