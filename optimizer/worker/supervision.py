"""A sandboxed child of an attempt from its start to its end: it is heard, the hold is renewed, time is kept."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings

from controlplane.core.sandbox import Child, Limits
from optimizer import curves, toolchains
from optimizer.domain.jobs import FailureReason
from optimizer.worker.hold import Cancelled, Hold, StepFailed, Stopped

POLL_S = 0.1
HEARD_AT_ONCE = 500
MORE_ROOM = "Workers that are started with a larger SLIPWAY_JOB_MEMORY_BYTES give it more."


def supervise(
    *,
    entry: str,
    spec: dict[str, Any],
    readable: Sequence[Path],
    writable: Sequence[Path] = (),
    wall_s: float,
    hold: Hold,
    folder: Path,
    toolchain: str | None = None,
    stop_grace_s: float = 0.0,
) -> dict[str, Any]:
    """Runs a child to its end, tending the hold meanwhile. Raises StepFailed, LeaseLost, Cancelled or Stopped; the
    last two after `stop_grace_s` at most, in which a child that listens ends by itself."""
    limits = Limits(
        memory_bytes=settings.ENVIRONMENT.job_memory_bytes,
        cpu_s=int(wall_s),
        wall_s=wall_s,
        file_bytes=8 * 1024**3,
        processes=256,
    )
    with Child.start(
        entry=entry,
        spec=spec,
        scratch=folder,
        limits=limits,
        readable=readable,
        writable=writable,
        held_until=hold.until,
        python=interpreter(toolchain),
    ) as child:
        try:
            while not child.finished:
                _hear_all(child, hold)
                hold.tend()
                child.hold_until(hold.until)
        except (Cancelled, Stopped):
            _let_end(child, hold, within_s=stop_grace_s)
            raise
        outcome = child.outcome()
    if outcome.reason == "abandoned":
        late = "The worker could not renew its hold on the job in time, so this step was stopped."
        raise StepFailed(FailureReason.ERROR, late)
    if outcome.result is None:
        reason = FailureReason(outcome.reason)
        advice = f" {MORE_ROOM}" if reason is FailureReason.OUT_OF_MEMORY else ""
        raise StepFailed(reason, outcome.detail + advice)
    return outcome.result


def _let_end(child: Child, hold: Hold, *, within_s: float) -> None:
    """Asks the child to end, and hears what it still says. It is killed when the caller leaves its block."""
    if within_s:
        child.ask_to_stop()
    until = min(time.monotonic() + within_s, hold.until)
    while not child.finished and time.monotonic() < until:
        _hear_all(child, hold)


def interpreter(toolchain: str | None) -> Path | None:
    """Of the toolchain; None for our own. Raises StepFailed where it is gone: its queue promised it."""
    if toolchain is None:
        return None
    found = toolchains.python(settings.ENVIRONMENT.toolchains, toolchain)
    if found is None:
        label = toolchains.TOOLCHAINS[toolchain].label
        raise StepFailed(FailureReason.ERROR, f"{label} is no longer installed on this worker.")
    return found


def _hear_all(child: Child, hold: Hold) -> None:
    """What the child has said by now, so that it is written in one go; but never so much that the hold waits."""
    message = child.poll(POLL_S)
    for _ in range(HEARD_AT_ONCE):
        if message is None:
            return
        hear(message, hold)
        message = child.poll(0)


def hear(message: dict[str, Any], hold: Hold) -> None:
    """What a child said, into the job's log and its progress."""
    match message["kind"]:
        case "log":
            hold.say(message["message"], level=message.get("level", "info"))
        case "step":
            hold.say(message["name"])
        case "progress":
            hold.progress(done=message["done"], total=message["total"])
        case "point":
            hold.say(curves.in_words(message), data=curves.recorded(message))
