"""What a child says of the environment that it runs in, and what a model answers there. Imports nothing that only tests
have."""

import os
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from optimizer.evaluation import machine
from optimizer.workbench.formats import open_as


def tell(spec: dict[str, Any], emit: Any) -> dict[str, Any]:
    return {"prefix": sys.prefix, "versions": {name: version(name) for name in spec["packages"]}}


def answer(spec: dict[str, Any], emit: Any) -> dict[str, Any]:
    """Leaves the `outputs` for `feed` at `answers`."""
    with np.load(spec["feed"]) as items:
        feed = {name: items[name] for name in items}
    session = open_as(spec["format"], Path(spec["path"]))
    np.savez(spec["answers"], **dict(zip(spec["outputs"], session.run(spec["outputs"], feed), strict=True)))
    return {}


def open_on_gpu(spec: dict[str, Any], emit: Any) -> dict[str, Any]:
    open_as(spec["format"], Path(spec["path"]), gpu=True)
    return {}


def who_computes(spec: dict[str, Any], emit: Any) -> dict[str, Any]:
    """Processor time of the asking thread and of all others while a model with one thread answers, held still as for a
    measurement, and on which cores each may be."""
    with np.load(spec["feed"]) as items:
        feed = {name: items[name] for name in items}
    session = open_as(spec["format"], Path(spec["path"]), threads=1)
    me = threading.get_native_id()
    with machine.steady(threads=1) as cores:
        session.run(spec["outputs"], feed)
        before = _ticks()
        for _ in range(spec["runs"]):
            session.run(spec["outputs"], feed)
        spent = {thread: ticks - before.get(thread, 0) for thread, ticks in _ticks().items()}
        allowed = sorted({core for thread in spent for core in os.sched_getaffinity(thread)})
    mine = spent.pop(me)
    return {"mine": mine, "others": sum(spent.values()), "cores": cores, "allowed": allowed}


def _ticks() -> dict[int, int]:
    fields = {
        thread: (folder / "stat").read_text().rpartition(")")[2].split()
        for thread, folder in machine.threads().items()
    }
    return {thread: int(row[11]) + int(row[12]) for thread, row in fields.items()}
