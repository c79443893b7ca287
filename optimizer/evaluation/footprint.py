"""What a model costs to hold: load time and memory, each in a process of its own.

Measured apart because the evaluating process has three sessions open and its allocator gives nothing back;
the difference between two of its readings would be noise.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optimizer.workbench.signature import Feed

TIMEOUT_S = 120


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """`memory_bytes`: growth of the resident set by loading the model and answering one request."""

    file_bytes: int
    load_ms: float | None
    memory_bytes: int | None


def measure(path: Path, *, feed: Feed, threads: int, scratch: Path) -> Footprint:
    """Starts one short process, which ends with this call. Load time and memory are None when it fails."""
    feed_path = scratch / "footprint-feed.npz"
    if any(array.dtype.kind == "O" for array in feed.values()):
        return Footprint(file_bytes=path.stat().st_size, load_ms=None, memory_bytes=None)
    np.savez(feed_path, *feed.values())
    request = {"path": str(path), "feed": str(feed_path), "names": list(feed), "threads": threads}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "optimizer.evaluation.footprint", json.dumps(request)],
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        answer = {}
    return Footprint(
        file_bytes=path.stat().st_size, load_ms=answer.get("load_ms"), memory_bytes=answer.get("memory_bytes")
    )


def _resident_bytes() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Loads, answers once, and says what that took."""
    import onnxruntime  # noqa: F401  its own size is not the model's

    from optimizer.workbench.session import open_session

    with np.load(request["feed"], allow_pickle=False) as archive:
        feed = {name: archive[f"arr_{index}"] for index, name in enumerate(request["names"])}
    before = _resident_bytes()
    start = time.perf_counter()
    session = open_session(Path(request["path"]), threads=request["threads"])
    load_ms = (time.perf_counter() - start) * 1000
    session.run(None, feed)
    after = _resident_bytes()
    grown = after - before if before is not None and after is not None else None
    return {"load_ms": load_ms, "memory_bytes": grown}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answer(json.loads(sys.argv[1]))))
