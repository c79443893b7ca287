"""The job machine: its states, its edges, and why a job failed. Written to the database by `transitions` only."""

from enum import StrEnum

from optimizer.domain.recipe import MAX_STEPS

MEASURE_WALL_S = 900.0
FILES_WALL_S = 900.0
"""For reading and storing what may be gigabytes."""


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

EDGES: dict[str, frozenset[str]] = {
    # failed directly: the attempts were used up while it waited, or its input is gone
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    # queued: released by its worker or taken back when the lease ran out; running: claimed after expiry
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING, JobState.SUCCEEDED, JobState.FAILED}
    ),
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class FailureReason(StrEnum):
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    INTEGRITY = "integrity"
    REFUSED = "refused"
    STORAGE_FULL = "storage_full"
    ERROR = "error"
    CANCELLED_BY_LIMIT = "cancelled_by_limit"


FINAL_AT_ONCE = frozenset({FailureReason.REFUSED, FailureReason.INTEGRITY, FailureReason.TIMEOUT})
"""A second try would end the same way."""

ATTEMPT_CAP: dict[FailureReason, int] = {FailureReason.OUT_OF_MEMORY: 2, FailureReason.CRASHED: 2}
"""How often a job may end for a reason that usually repeats."""


def longest_attempt_s(*, technique_wall_s: float) -> float:
    """What an attempt may take if each of its steps takes all it may. Whatever stops it sooner must know why."""
    return MAX_STEPS * technique_wall_s + MEASURE_WALL_S + FILES_WALL_S


def may_retry(reason: FailureReason, *, times: int, attempt: int, max_attempts: int) -> bool:
    """Whether a job whose `attempt`-th try (from 1) ended for `reason`, for the `times`-th time, goes back to the
    queue."""
    return reason not in FINAL_AT_ONCE and attempt < max_attempts and not repeats(reason, times=times)


def repeats(reason: FailureReason, *, times: int) -> bool:
    """Whether that often is often enough to hold the input responsible. What ended an attempt otherwise, such as
    a worker that went away, says nothing about it."""
    return times >= ATTEMPT_CAP.get(reason, times + 1)


def backoff_s(attempt: int, *, jitter: float) -> float:
    """Seconds until the next try: none after the first lost worker, then 10 s doubling, capped at 10 min.

    `jitter` in [0, 1) spreads tries by up to a quarter.
    """
    if attempt <= 1:
        return 0.0
    return float(min(10 * 2 ** (attempt - 2), 600) * (1 + jitter / 4))
