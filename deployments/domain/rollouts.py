"""The rollout machine, and a deployment's health as it is derived from what is observed."""

from enum import StrEnum


class RolloutState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    ROLLING_BACK = "rolling_back"
    SUCCEEDED = "succeeded"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = frozenset(
    {RolloutState.PENDING, RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ROLLING_BACK}
)

EDGES: dict[str, frozenset[str]] = {
    RolloutState.PENDING: frozenset({RolloutState.RUNNING, RolloutState.CANCELLED, RolloutState.FAILED}),
    RolloutState.RUNNING: frozenset(
        {
            RolloutState.PAUSED,
            RolloutState.ROLLING_BACK,
            RolloutState.SUCCEEDED,
            RolloutState.FAILED,
            RolloutState.CANCELLED,
        }
    ),
    RolloutState.PAUSED: frozenset({RolloutState.RUNNING, RolloutState.ROLLING_BACK, RolloutState.CANCELLED}),
    RolloutState.ROLLING_BACK: frozenset(
        {RolloutState.ROLLED_BACK, RolloutState.FAILED, RolloutState.CANCELLED}
    ),
    RolloutState.SUCCEEDED: frozenset(),
    RolloutState.ROLLED_BACK: frozenset(),
    RolloutState.FAILED: frozenset(),
    RolloutState.CANCELLED: frozenset(),
}


class Health(StrEnum):
    READ_ONLY = "read_only"
    """Others run it: it was imported, and not taken over."""
    PENDING = "pending"
    PROGRESSING = "progressing"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    SCALED_TO_ZERO = "scaled_to_zero"
    UNREACHABLE = "unreachable"
    FAILED = "failed"
    REMOVING = "removing"


def health(
    *,
    removing: bool,
    reachable: bool,
    has_revision: bool,
    rollout_active: bool,
    last_failed: bool,
    wanted: int,
    ready: int,
    read_only: bool = False,
) -> Health:
    """What a person should read at a glance. The order of the questions is the order of what matters.

    `last_failed`: the latest rollout failed. It tells "never served" from "nothing was tried yet".
    """
    if removing:
        return Health.REMOVING
    if read_only and not rollout_active:
        return Health.READ_ONLY if reachable else Health.UNREACHABLE
    if not has_revision and not rollout_active:
        return Health.FAILED if last_failed else Health.PENDING
    if not reachable:
        return Health.UNREACHABLE
    if rollout_active:
        return Health.PROGRESSING
    if wanted == 0:
        return Health.SCALED_TO_ZERO
    if ready == 0:
        return Health.FAILED
    return Health.HEALTHY if ready >= wanted else Health.DEGRADED
