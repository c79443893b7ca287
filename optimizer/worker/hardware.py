"""What this worker can run on, as it tells the fleet page and as reports quote it."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from django.conf import settings

from optimizer.toolchains import installed, usable
from optimizer.worker import gpus

NOTABLE_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")
TOOLCHAIN = ("onnx", "onnxruntime", "numpy")


def _cpu() -> tuple[str, list[str]]:
    model, flags = platform.processor() or platform.machine(), set()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
            elif name.strip() == "flags":
                flags = set(value.split())
                break
    except OSError:
        pass
    return model, [flag for flag in NOTABLE_FLAGS if flag in flags]


def memory() -> dict[str, int]:
    """Bytes in all and available, from the kernel; empty where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
    return {"total_bytes": found["MemTotal"], "available_bytes": found["MemAvailable"]}


def inventory() -> dict[str, Any]:
    model, flags = _cpu()
    return {
        "cpu": model,
        "cpu_flags": flags,
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory().get("total_bytes", 0),
        "toolchains": toolchains(),
        "hostname": platform.node(),
        **gpus.found().to_json(),
    }


def served_gpu() -> str | None:
    """The compute capability of the GPU whose jobs this worker takes. Empty where the driver does not say, None without
    a GPU."""
    gpu = gpus.served()
    return None if gpu is None else gpu.capability or ""


def toolchains() -> dict[str, dict[str, str]]:
    return usable(installed(settings.ENVIRONMENT.toolchains), gpu=gpus.served() is not None)


def load() -> dict[str, Any]:
    return {"load_1m": round(os.getloadavg()[0], 2), **memory(), "gpus": gpus.load()}


def toolchain() -> dict[str, str]:
    """Installed versions of what decides how an artifact comes out; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in TOOLCHAIN:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
