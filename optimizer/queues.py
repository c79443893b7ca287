"""Where a job waits: the name of its queue says what its worker must have.

`optimize.cpu`, `optimize.cpu.openvino`, `optimize.gpu` (any GPU), `optimize.gpu.sm_89.torch`. A worker listens to every
name that it can serve of those that it was started for, `optimize.cpu` (all that it can) or `optimize.gpu` (what needs
a GPU). It serves one GPU, so those are three classes at most (CPU, any GPU, its own capability), each with every
combination of its toolchains: 3 x 2^n names for n toolchains, which nobody types.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

from controlplane.core.errors import Unprocessable
from optimizer.toolchains import CPU_QUEUE, TOOLCHAINS, queue, queues

GPU_QUEUE = "optimize.gpu"
ANY_GPU = "any"
CAPABILITY = r"[1-9][0-9]?\.[0-9]"
"""A compute capability as NVIDIA writes it, such as 8.9 or 12.0."""
_QUEUE = re.compile(
    r"optimize\.(?:cpu|gpu(?:\.sm_(?P<capability>[1-9][0-9]{1,2}))?)(?P<rest>(?:\.(?!sm_)[a-z]+)*)", re.ASCII
)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a job needs of its worker. `gpu` is empty, `any`, or a compute capability."""

    gpu: str = ""
    toolchains: frozenset[str] = frozenset()

    @property
    def queue(self) -> str:
        return queue(self.toolchains, base=_base(self.gpu))

    @classmethod
    def read(cls, name: str) -> Self | None:
        """What a job of the queue needs; None for a queue whose name does not say."""
        found = _QUEUE.fullmatch(name)
        if found is None:
            return None
        digits = found["capability"]
        gpu = f"{digits[:-1]}.{digits[-1]}" if digits else ANY_GPU if name.startswith(GPU_QUEUE) else ""
        return cls(gpu=gpu, toolchains=frozenset(filter(None, found["rest"].split("."))))

    def on(self, gpu: str) -> Self:
        """The same on the GPU that somebody chose; what the recipe needs anyway stays needed.

        Raises Unprocessable("invalid_gpu")."""
        if gpu and gpu != ANY_GPU and not re.fullmatch(CAPABILITY, gpu, re.ASCII):
            raise Unprocessable(
                "invalid_gpu",
                f"“{gpu[:20]}” names no GPU.",
                "Give a compute capability, such as 8.9, or “any”.",
            )
        return replace(self, gpu=gpu) if gpu else self

    def parts(self) -> list[Self]:
        """Each need by itself."""
        own = type(self)
        gpu = [own(gpu=self.gpu)] if self.gpu else []
        return [*gpu, *(own(toolchains=frozenset({key})) for key in sorted(self.toolchains))]

    def in_words(self) -> list[str]:
        """Each need as a noun."""
        gpu = {"": [], ANY_GPU: ["a GPU"]}.get(self.gpu, [f"a GPU of compute capability {self.gpu}"])
        return [*gpu, *(label(key) for key in sorted(self.toolchains))]


def label(toolchain: str) -> str:
    """One that is no longer in the table keeps its key."""
    return TOOLCHAINS[toolchain].label if toolchain in TOOLCHAINS else toolchain


def served(*, toolchains: Collection[str], gpu: str | None = None, cpu: bool = True) -> list[str]:
    """Every queue whose jobs a worker can run. `gpu` is the capability of the GPU it serves, empty where that is
    unknown, None without one; `cpu` says whether it takes the jobs that need no GPU."""
    classes = [*([""] if cpu else []), *([] if gpu is None else [ANY_GPU, *([gpu] if gpu else [])])]
    return [name for wanted in classes for name in queues(toolchains, base=_base(wanted))]


def _base(gpu: str) -> str:
    match gpu:
        case "":
            return CPU_QUEUE
        case "any":
            return GPU_QUEUE
    return f"{GPU_QUEUE}.sm_{gpu.replace('.', '')}"
