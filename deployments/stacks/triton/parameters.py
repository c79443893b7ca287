"""What may be set on a Triton replica, and what its batcher cannot bear.

Priorities and queue policies make it stop prefetching; it then waits up to 500 ms for an instance that is already
free. With one instance that happens all the time (p99 of 502 to 636 ms where 7 to 30 ms were measured), with two it is
rare. So they are off, and refused with one instance. A limit of waiting requests does the same, so it is never
written into the model's configuration.
"""

from typing import Literal

from pydantic import Field, model_validator

from deployments.stacks.batching import Batching
from deployments.stacks.fastapi.parameters import Threads

UNSTALLED_INSTANCES = 2


class Parameters(Batching):
    """Everything a revision may set on this stack."""

    max_queue_size: int = Field(
        default=256,
        ge=1,
        le=100_000,
        title="Queue limit",
        description="For what stands before the replicas. Triton itself keeps every waiting request: a limit of its "
        "own makes its batcher stall.",
    )
    threads: Threads = 1
    instance_count: int = Field(
        default=1,
        ge=1,
        le=64,
        title="Instances",
        description="Copies of the model in one replica, each of which runs a batch of its own.",
    )
    priority_levels: int = Field(
        default=0,
        ge=0,
        le=10,
        title="Priority levels",
        description="How many there are, 1 being the most urgent; 0 for none. Needs two instances, and even then "
        "some requests may wait 500 ms for nothing.",
    )
    default_priority_level: int = Field(
        default=0,
        ge=0,
        le=10,
        title="Usual priority",
        description="The level of a request that names none. Needed as soon as there are levels.",
    )
    queue_timeout_microseconds: int = Field(
        default=0,
        ge=0,
        le=60_000_000,
        title="Queue timeout (µs)",
        description="How long a request waits at most; 0 is without an end. Needs two instances, as levels do.",
    )
    queue_timeout_action: Literal["REJECT", "DELAY"] = Field(
        default="REJECT",
        title="After the timeout",
        description="REJECT answers 503, DELAY serves it after all others.",
    )

    @property
    def has_queue_policy(self) -> bool:
        return bool(self.priority_levels or self.queue_timeout_microseconds)

    @model_validator(mode="after")
    def _levels_fit(self) -> "Parameters":
        levels, usual = self.priority_levels, self.default_priority_level
        if levels and not 1 <= usual <= levels:
            raise ValueError(
                f"default_priority_level must lie between 1 and priority_levels {levels}, but is {usual}"
            )
        if usual and not levels:
            raise ValueError(f"default_priority_level is {usual}, but there are no priority_levels")
        return self

    @model_validator(mode="after")
    def _batcher_does_not_stall(self) -> "Parameters":
        if self.has_queue_policy and self.instance_count < UNSTALLED_INSTANCES:
            name = "priority_levels" if self.priority_levels else "queue_timeout_microseconds"
            raise ValueError(
                f"{name} needs an instance_count of {UNSTALLED_INSTANCES} or more: with one instance the batcher "
                "stalls for up to 500 ms"
            )
        return self
