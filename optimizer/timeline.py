"""What a job's page says about time: its steps with their durations, and what past runs let one expect.

Made from the events, which survive whoever wrote them; nothing here is stored. Refused: an estimate from the
share of steps that are done; steps differ by three orders of magnitude.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import QuerySet

from controlplane.core import formats
from optimizer.domain.jobs import TERMINAL, JobState
from optimizer.models import Job, JobEvent
from optimizer.techniques import TECHNIQUES

FIRST, MEASURE, LAST = "Check the input", "Measure against the parent", "Store the variant"
KEEP = "Keep the report"
LOOK_BACK = 200
PAST_RUNS = 20
FEWEST_RUNS = 2


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """`state` is a word of the vocabulary; what has not begun is `pending`, what its attempt took with it `failed`."""

    name: str
    state: str
    duration_s: float | None = None
    note: str = ""
    done: float = 0
    total: float = 0
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds that past runs took in all, from the quickest to the slowest of the `runs` last ones."""

    low_s: float
    high_s: float
    runs: int

    def left(self, elapsed_s: float) -> tuple[float, float] | None:
        """The range that is left; None once this run is slower than all of them."""
        if elapsed_s >= self.high_s:
            return None
        return max(0.0, self.low_s - elapsed_s), self.high_s - elapsed_s

    @property
    def exceeded(self) -> str:
        """What to say of a run that is slower than all of them."""
        low, high = (formats.duration(seconds, whole=True) for seconds in (self.low_s, self.high_s))
        return f"longer than the last {self.runs} runs ({low} to {high})"


def technique_label(key: str) -> str:
    """A technique that is no longer installed keeps its key."""
    return TECHNIQUES.rows()[key].label if key in TECHNIQUES else key


def planned(job: Job) -> list[str]:
    """The names of all steps, in order."""
    made = [technique_label(step["technique"]) for step in job.recipe]
    return [FIRST, *made, MEASURE, LAST if job.measures_id is None else KEEP]


def steps(job: Job, *, attempt: int, events: Sequence[JobEvent], now: datetime) -> list[StepRow]:
    """The steps of one attempt. `events` are the job's steps and changes of state, in order."""
    own = [event for event in events if event.attempt == attempt]
    begun = [event for event in own if event.kind == JobEvent.Kind.STEP]
    ended_at = _ended_at(job, attempt=attempt, events=own, now=now)
    rows = []
    for index, event in enumerate(begun):
        last = index == len(begun) - 1
        until = ended_at if last else begun[index + 1].at
        state = _state_of_last(job, attempt=attempt) if last else JobState.SUCCEEDED
        rows.append(_row(job, event, state=state, duration_s=max(0.0, (until - event.at).total_seconds())))
    return rows + [StepRow(name=name, state="pending") for name in planned(job)[len(rows) :]]


def _row(job: Job, event: JobEvent, *, state: str, duration_s: float) -> StepRow:
    if state != JobState.RUNNING or not job.progress_total:
        return StepRow(name=event.message, state=state, duration_s=duration_s)
    return StepRow(
        name=event.message,
        state=state,
        duration_s=duration_s,
        done=round(job.progress_done),
        total=round(job.progress_total),
    )


def _is_current(job: Job, attempt: int) -> bool:
    return attempt == job.attempt and job.state in {JobState.RUNNING, JobState.CANCELLING}


def _state_of_last(job: Job, *, attempt: int) -> str:
    if _is_current(job, attempt):
        return str(job.state)
    if attempt == job.attempt and job.state in {JobState.SUCCEEDED, JobState.CANCELLED}:
        return str(job.state)
    return JobState.FAILED


def _ended_at(job: Job, *, attempt: int, events: Sequence[JobEvent], now: datetime) -> datetime:
    if _is_current(job, attempt):
        return now
    return events[-1].at if events else now


def elapsed_s(job: Job, *, now: datetime) -> float | None:
    """Of the current or last attempt; None before the first."""
    if job.started_at is None:
        return None
    until = job.finished_at if job.state in TERMINAL and job.finished_at else now
    return max(0.0, (until - job.started_at).total_seconds())


def estimate(job: Job, past: QuerySet[Job]) -> Estimate | None:
    """From the last runs of `past` with the same techniques on the same queue; None with fewer than two.

    One query of at most LOOK_BACK narrow rows.
    """
    rows = past.filter(state=JobState.SUCCEEDED, queue=job.queue).exclude(pk=job.pk)
    taken = [
        (finished - started).total_seconds()
        for recipe, started, finished in rows.order_by("-pk").values_list(
            "recipe", "started_at", "finished_at"
        )[:LOOK_BACK]
        if started and finished and _techniques(recipe) == _techniques(job.recipe)
    ][:PAST_RUNS]
    if len(taken) < FEWEST_RUNS:
        return None
    return Estimate(low_s=min(taken), high_s=max(taken), runs=len(taken))


def _techniques(recipe: Sequence[Mapping[str, object]]) -> list[object]:
    return [step.get("technique") for step in recipe]
