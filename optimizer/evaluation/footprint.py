"""What a model costs to hold: load time and memory, each in a process of its own.

Measured apart because the evaluating process has three sessions open and its allocator gives nothing back;
the difference between two of its readings would be noise.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optimizer.evaluation.start import command
from optimizer.workbench.formats import Format
from optimizer.workbench.signature import Feed

TIMEOUT_S = 120
CHILD = "optimizer.evaluation.footprint_child"


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """`memory_bytes`: growth of the resident set by loading the model and answering one request; on a GPU, of the
    memory of that which is in use."""

    file_bytes: int
    load_ms: float | None
    memory_bytes: int | None


def measure(
    path: Path,
    *,
    format: Format,
    feed: Feed,
    outputs: Sequence[str],
    threads: int,
    scratch: Path,
    python: Path | None = None,
    gpu: bool = False,
) -> Footprint:
    """Starts one short process, which ends with this call. Load time and memory are None where it fails, and of a
    format that does not run here."""
    size = path.stat().st_size
    if not (format.gpu_opener if gpu else format.opener) or any(
        array.dtype.kind == "O" for array in feed.values()
    ):
        return Footprint(file_bytes=size, load_ms=None, memory_bytes=None)
    feed_path = scratch / "footprint-feed.npz"
    np.savez(feed_path, *feed.values())
    request = {
        "path": str(path),
        "format": format.key,
        "feed": str(feed_path),
        "names": list(feed),
        "outputs": list(outputs),
        "threads": threads,
        "gpu": gpu,
    }
    answer = _answer(request, python=python)
    return Footprint(file_bytes=size, load_ms=answer.get("load_ms"), memory_bytes=answer.get("memory_bytes"))


def _answer(request: dict[str, Any], *, python: Path | None) -> dict[str, Any]:
    try:
        done = subprocess.run(
            command(CHILD, json.dumps(request), python=python),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        # A library may have printed before.
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}
    return answer
