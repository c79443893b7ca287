"""Techniques that go wrong, as other packages might bring them. They are in the table only where a test puts them.

The sandboxed child of a fault starts here, puts the rows in, and goes on as every child does. No Django.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from controlplane.core.plugins import Entry
from optimizer.evaluation import child as evaluation
from optimizer.techniques import TECHNIQUES, child
from optimizer.techniques.port import (
    Device,
    Hardware,
    Kind,
    ModelSummary,
    Parameters,
    Promises,
    Refusal,
    Technique,
    Work,
)
from optimizer.workbench.journal import Emit

SLOW, SEGFAULT, HANG, FREEZE = "fault-slow", "fault-segfault", "fault-hang", "fault-freeze"
HUNGRY, RESUME = "fault-hungry", "fault-resume"
BITE_BYTES = 32 * 1024**2
LINE_EVERY_S = 0.05


class Lines(Parameters):
    """How many lines to say before the work is done; it says 20 a second."""

    lines: int = 1


def _check(
    signature: Mapping[str, Any], summary: ModelSummary, hardware: Hardware, params: Parameters
) -> tuple[Refusal, ...]:
    return ()


def _technique(key: str, *, entry: str) -> Technique:
    return Technique(
        key=key,
        label=key,
        description="Goes wrong on purpose.",
        takes=(Kind(format="onnx", precision=None),),
        gives=Kind(format="onnx", precision=None),
        device=Device.CPU,
        parameters=Lines,
        promises=Promises(speedup=(1, 1), loss_points=(0, 0), effort="None."),
        check=_check,
        entry=f"{__name__}:{entry}",
    )


SLOW_TECHNIQUE = _technique(SLOW, entry="copy")
SEGFAULT_TECHNIQUE = _technique(SEGFAULT, entry="segfault")
HANG_TECHNIQUE = _technique(HANG, entry="hang")
FREEZE_TECHNIQUE = _technique(FREEZE, entry="copy")
"""Copies at once; `tests.faults.app` freezes its first attempt where it is about to finish."""

HUNGRY_TECHNIQUE = _technique(HUNGRY, entry="devour")
RESUME_TECHNIQUE = replace(_technique(RESUME, entry="go_on"), resumes=True)

ENTRIES = tuple(
    Entry(key=key, label=key, path=f"{__name__}:{name}_TECHNIQUE")
    for key, name in (
        *((SLOW, "SLOW"), (SEGFAULT, "SEGFAULT"), (HANG, "HANG")),
        *((FREEZE, "FREEZE"), (HUNGRY, "HUNGRY"), (RESUME, "RESUME")),
    )
)


def offer() -> None:
    """Puts the rows into the table of this process."""
    if not set(ENTRIES) <= set(TECHNIQUES.entries):
        TECHNIQUES.entries += ENTRIES


@contextmanager
def offered() -> Iterator[None]:
    before = TECHNIQUES.entries
    offer()
    yield
    TECHNIQUES.entries = before


def run(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """`optimizer.techniques.child:run` with the rows in its table."""
    offer()
    return child.run(spec, emit)


def evaluate(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """`optimizer.evaluation.child:evaluate` with the rows in its table."""
    offer()
    return evaluation.evaluate(spec, emit)


def copy(work: Work, params: Lines) -> dict[str, Any]:
    for number in range(1, params.lines + 1):
        work.journal.info(f"line {number}")
        time.sleep(LINE_EVERY_S)
    shutil.copy(work.input, work.output)
    return {}


def go_on(work: Work, params: Lines) -> dict[str, Any]:
    """The same, from the line after the last one that an earlier attempt said."""
    assert work.kept is not None
    place = work.kept / "place"
    said = int(place.read_text()) if place.exists() else 0
    if said:
        work.journal.info(f"resumed after line {said}")
    for number in range(said + 1, params.lines + 1):
        work.journal.info(f"line {number}")
        place.with_suffix(".part").write_text(str(number))
        place.with_suffix(".part").replace(place)
        time.sleep(LINE_EVERY_S)
    shutil.copy(work.input, work.output)
    return {}


def segfault(work: Work, params: Lines) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def hang(work: Work, params: Lines) -> dict[str, Any]:
    while True:
        time.sleep(60)


def devour(work: Work, params: Lines) -> dict[str, Any]:
    """Takes memory, and writes to all of it, until there is no more."""
    eaten = []
    while True:
        eaten.append(b"\1" * BITE_BYTES)
