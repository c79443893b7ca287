"""What may be set on a replica of this stack: the one schema behind the form, the API and the validation."""

from typing import Annotated

from pydantic import Field

from deployments.stacks.batching import Batching

Threads = Annotated[
    int,
    Field(title="Threads", description="Threads of one inference (intra-op).", ge=1, le=64),
]


class Parameters(Batching):
    """Everything a revision may set on this stack."""

    threads: Threads = 1
