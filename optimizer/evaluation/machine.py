"""The machine a number was measured on, and holding still on it.

A figure without its CPU model, instruction sets, load and versions cannot be compared with another one.
"""

import gc
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from optimizer.evaluation import clocks

# The instruction sets that decide how fast integer and half-precision kernels are.
TELLING_FLAGS = frozenset(
    [
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512bw",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "avx_vnni",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
        "asimd",
        "asimddp",
        "i8mm",
        "bf16",
        "sve",
        "sve2",
    ]
)
PACKAGES = (
    *("onnxruntime", "onnxruntime-gpu", "tensorrt-rtx-cu12", "tensorrt", "openvino", "torch", "transformers"),
    *("scikit-learn", "onnx", "numpy"),
)
"""Those that are there are told: which, depends on the toolchain."""
_CPUINFO = Path("/proc/cpuinfo")
_STAT = Path("/proc/stat")
_THREADS = Path("/proc/self/task")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """`gpu` is what was measured on; empty where that was the processor."""

    cpu_model: str
    cpu_flags: tuple[str, ...]
    cores: int
    memory_bytes: int | None
    system: str
    python: str
    versions: dict[str, str]
    gpu: str = ""


def describe(*, gpu: bool = False) -> Machine:
    """Reads /proc/cpuinfo where there is one. `gpu` says whether that was measured on. Raises nothing: what is unknown
    is empty."""
    fields = _cpuinfo()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return Machine(
        cpu_model=fields.get("model name") or platform.processor() or platform.machine(),
        cpu_flags=tuple(sorted(flags & TELLING_FLAGS)),
        cores=len(usable_cores()) or os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        versions={name: found for name in PACKAGES if (found := _version(name))},
        gpu=next((one.name for one in clocks.gpus()), "GPU") if gpu else "",
    )


def load_average() -> float:
    """Runnable processes over the last minute."""
    return round(os.getloadavg()[0], 2)


def usable_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def idlest_cores(count: int, *, sample_s: float = 0.1) -> list[int]:
    """The allowed cores that worked least during the sample; empty where the system cannot pin.

    Two jobs on one machine thereby rarely measure on the same core.
    """
    allowed = usable_cores()
    before = _busy_ticks()
    time.sleep(sample_s)
    after = _busy_ticks()
    return sorted(sorted(allowed, key=lambda core: after.get(core, 0) - before.get(core, 0))[:count])


@contextmanager
def steady(*, threads: int) -> Iterator[list[int]]:
    """Pins this process to the idlest core and holds the garbage collector; gives both back.

    Every thread of it, so that no runtime can compute on another core than the one it is compared with. Yields the core
    in a list; nothing where pinning is impossible, or where more than one thread works.
    """
    before = usable_cores()
    cores = idlest_cores(1) if threads == 1 else []
    if cores and not pin(cores):
        pin(before)
        cores = []
    gc.collect()
    gc.disable()
    try:
        yield cores
    finally:
        gc.enable()
        if cores:
            pin(before)


def pin(cores: list[int]) -> bool:
    """All threads that live now; later ones follow the one that starts them. False where it may not be."""
    try:
        os.sched_setaffinity(0, cores)
        for thread in threads():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread, cores)
    except OSError:
        return False
    return True


def threads() -> dict[int, Path]:
    """The folder in /proc of each thread of this process, by the number that it has here: in a namespace of processes
    /proc may still be the outer one. Raises OSError."""
    found = {}
    for folder in _THREADS.iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = (folder / "status").read_text().splitlines()
            numbers = next((line for line in lines if line.startswith("NSpid:")), folder.name)
            found[int(numbers.split()[-1])] = folder
    return found


def _cpuinfo() -> dict[str, str]:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return {}
    pairs = [line.partition(":") for line in lines if ":" in line]
    return {key.strip(): value.strip() for key, _, value in reversed(pairs)}


def _busy_ticks() -> dict[int, int]:
    try:
        lines = _STAT.read_text().splitlines()
    except OSError:
        return {}
    rows = [line.split() for line in lines if line.startswith("cpu") and line[3:4].isdigit()]
    # user nice system idle iowait irq softirq steal: busy is all but idle and iowait.
    return {int(row[0][3:]): sum(map(int, row[1:4])) + sum(map(int, row[6:9])) for row in rows}


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
