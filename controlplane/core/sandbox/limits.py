"""What a child may use. The kernel holds most of it; the parent's clock holds the wall limit."""

from dataclasses import asdict, dataclass
from typing import Any

MIB = 1024**2


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`memory_bytes` is private memory per process, without the code and files that it maps, `file_bytes` the size of
    one file, `cpu_s` CPU time per process. `processes` counts threads too. `threads` is what numeric libraries are told
    to use."""

    memory_bytes: int
    cpu_s: int
    wall_s: float
    file_bytes: int
    processes: int = 64
    network: bool = False
    threads: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
