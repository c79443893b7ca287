"""Run by path in a fresh process: loads one model, answers once, prints what that took as JSON.

Imports nothing of ours, because inside the sandbox the folder of our packages cannot be listed by a process
that starts there. The session is opened as `optimizer.workbench.session` opens it.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def resident_bytes() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def answer(request: dict[str, Any]) -> dict[str, Any]:
    with np.load(request["feed"], allow_pickle=False) as archive:
        feed = {name: archive[f"arr_{index}"] for index, name in enumerate(request["names"])}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    before = resident_bytes()
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(request["path"], options, providers=["CPUExecutionProvider"])
    load_ms = (time.perf_counter() - start) * 1000
    session.run(None, feed)
    after = resident_bytes()
    grown = after - before if before is not None and after is not None else None
    return {"load_ms": load_ms, "memory_bytes": grown}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answer(json.loads(sys.argv[1]))))
