"""How a worker's running tasks learn that it stops: they are asked, and end in order.

A worker that is told to stop sends its own stop signal (SIGTERM, or what that is remapped to) to the process of
each running task, and then waits for its pool. Here a task hears that as a question: long ones look at
`asked_for_s` and give their work back, short ones just end. Refused: Celery's soft shutdown, which sleeps its
whole time even when the last task has ended, and then kills in the middle of a write.
"""

import signal
import time
from types import FrameType
from typing import Any

from celery.signals import task_postrun, task_prerun

SIGNALS = (signal.SIGTERM, signal.SIGQUIT)
_asked_at: list[float] = []
_before: dict[signal.Signals, Any] = {}


def asked_for_s() -> float | None:
    """For how long this process has known that it shall stop; None while it need not."""
    return time.monotonic() - _asked_at[0] if _asked_at else None


def _hear(_number: int, _frame: FrameType | None) -> None:
    _asked_at.append(time.monotonic())


@task_prerun.connect
def begin(**_: Any) -> None:
    """The pool sets its own handlers after its processes' initializers, so this cannot be done once."""
    for number in SIGNALS:
        _before[number] = signal.signal(number, _hear)


@task_postrun.connect
def end(**_: Any) -> None:
    for number, handler in _before.items():
        signal.signal(number, handler)
    _before.clear()
