"""How fast the clocks ran before and after a measurement: a core that slows down, or a GPU that was asleep, changes
every figure of a report.

Of processors the kernel tells: its frequency driver, else /proc/cpuinfo, which on many virtual machines is a constant;
so the source is kept. Of GPUs NVML does, the library that comes with the driver, called through ctypes: a package for
eight calls would be one more pin in every toolchain.
"""

import ctypes
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CPUFREQ = Path("/sys/devices/system/cpu")
_CPUINFO = Path("/proc/cpuinfo")
_NVML = "libnvidia-ml.so.1"
_GRAPHICS, _MEMORY = 0, 2
_TEXT_BYTES = 96


@dataclass(frozen=True, kw_only=True)
class GpuClocks:
    """None for a clock that the GPU does not tell."""

    uuid: str
    name: str
    driver: str
    graphics_mhz: int | None
    memory_mhz: int | None


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """`cpu_mhz` by core; empty where the system does not tell, and then so is `cpu_source`. `gpus`: those that this
    process may use."""

    cpu_mhz: tuple[float, ...]
    cpu_source: str
    gpus: tuple[GpuClocks, ...] = ()


def now(cores: Sequence[int]) -> Clocks:
    """Of these cores. Raises nothing."""
    for source, found in (("cpufreq", _by_driver(cores)), ("/proc/cpuinfo", _by_cpuinfo(cores))):
        if found:
            return Clocks(cpu_mhz=found, cpu_source=source, gpus=gpus())
    return Clocks(cpu_mhz=(), cpu_source="", gpus=gpus())


def _by_driver(cores: Sequence[int]) -> tuple[float, ...]:
    """Of all of them or none."""
    try:
        texts = [(_CPUFREQ / f"cpu{core}/cpufreq/scaling_cur_freq").read_text() for core in cores]
        return tuple(round(int(text) / 1000, 1) for text in texts)
    except (OSError, ValueError):
        return ()


def _by_cpuinfo(cores: Sequence[int]) -> tuple[float, ...]:
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return ()
    pairs = re.findall(
        r"^processor\s*:\s*(\d+)$(?:\n.+$)*?\ncpu MHz\s*:\s*([\d.]+)$", text, flags=re.MULTILINE
    )
    known = {int(core): round(float(mhz), 1) for core, mhz in pairs}
    return tuple(known[core] for core in cores) if all(core in known for core in cores) else ()


def gpus() -> tuple[GpuClocks, ...]:
    """Nothing without NVML, or where it does not answer. Where CUDA_VISIBLE_DEVICES names GPUs, only those."""
    try:
        library = ctypes.CDLL(_NVML)
    except OSError:
        return ()
    if library.nvmlInit_v2() != 0:
        return ()
    try:
        driver = _text(library.nvmlSystemGetDriverVersion)
        count = ctypes.c_uint()
        if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return ()
        found = [_gpu(library, index, driver=driver) for index in range(count.value)]
    finally:
        library.nvmlShutdown()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    named = [gpu for gpu in found if gpu and gpu.uuid in chosen]
    return tuple(named or [gpu for gpu in found if gpu])


def _gpu(library: Any, index: int, *, driver: str) -> GpuClocks | None:
    handle = ctypes.c_void_p()
    if library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) != 0:
        return None
    return GpuClocks(
        uuid=_text(library.nvmlDeviceGetUUID, handle),
        name=_text(library.nvmlDeviceGetName, handle),
        driver=driver,
        graphics_mhz=_clock(library, handle, _GRAPHICS),
        memory_mhz=_clock(library, handle, _MEMORY),
    )


def _text(function: Any, *arguments: Any) -> str:
    """Empty where it is not told."""
    buffer = ctypes.create_string_buffer(_TEXT_BYTES)
    told = function(*arguments, buffer, ctypes.c_uint(_TEXT_BYTES)) == 0
    return buffer.value.decode(errors="replace") if told else ""


def _clock(library: Any, handle: Any, kind: int) -> int | None:
    mhz = ctypes.c_uint()
    told = library.nvmlDeviceGetClockInfo(handle, ctypes.c_uint(kind), ctypes.byref(mhz)) == 0
    return mhz.value if told else None
