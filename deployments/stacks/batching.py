"""The fields of batching that stacks have in common. Names and meanings are Triton's, so a plan made for one stack can
be read for another."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

PreferredSize = Annotated[int, Field(ge=1, le=1024)]


class Batching(BaseModel):
    """How requests are gathered into one run of the model."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    max_batch_size: int = Field(
        default=8,
        ge=1,
        le=1024,
        title="Largest batch",
        description="Rows in one run of the model at most. 1 turns batching off; a larger request is refused.",
    )
    preferred_batch_size: tuple[PreferredSize, ...] = Field(
        default=(),
        max_length=32,
        title="Preferred sizes",
        description="A batch of one of these sizes leaves at once, without waiting for the delay.",
        strict=False,
    )
    max_queue_delay_microseconds: int = Field(
        default=500,
        ge=0,
        le=1_000_000,
        title="Queue delay (µs)",
        description="How long the oldest request waits for company. A lone client pays it on every request.",
    )
    max_queue_size: int = Field(
        default=256,
        ge=1,
        le=100_000,
        title="Queue limit",
        description="Waiting requests kept at most; the next is answered 429 with Retry-After.",
    )

    @model_validator(mode="after")
    def _preferred_sizes_fit(self) -> "Batching":
        sizes = self.preferred_batch_size
        if list(sizes) != sorted(set(sizes)):
            raise ValueError("preferred_batch_size must be in rising order, each size once")
        if sizes and sizes[-1] > self.max_batch_size:
            raise ValueError(
                f"preferred_batch_size has {sizes[-1]}, which is above max_batch_size {self.max_batch_size}"
            )
        return self
