"""A fresh process that loads one model, answers once, and prints what that took as JSON.

The runtime itself is loaded before anything is counted.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from optimizer.workbench.formats import load_runtime, open_as


def main(request: str) -> None:
    sys.stdout.write(f"\n{json.dumps(_answer(**json.loads(request)))}")


def _answer(
    *, path: str, format: str, feed: str, names: list[str], outputs: list[str], threads: int, gpu: bool
) -> dict[str, Any]:
    with np.load(feed, allow_pickle=False) as archive:
        items = {name: archive[f"arr_{index}"] for index, name in enumerate(names)}
    held_bytes = device_bytes if gpu else resident_bytes
    load_runtime(format, gpu=gpu)
    before = held_bytes()
    start = time.perf_counter()
    session = open_as(format, Path(path), threads=threads, gpu=gpu)
    load_ms = (time.perf_counter() - start) * 1000
    session.run(outputs, items)
    after = held_bytes()
    grown = after - before if before is not None and after is not None else None
    return {"load_ms": load_ms, "memory_bytes": grown}


def resident_bytes() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def device_bytes() -> int | None:
    """In use on the GPU, by whomever."""
    from cuda.bindings import runtime

    _, free, total = runtime.cudaMemGetInfo()
    return total - free if total else None
