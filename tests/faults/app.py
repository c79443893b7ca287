"""The product's Celery application with the fault techniques in its table: `celery -A tests.faults.app worker`."""

import os
import signal
from importlib import import_module
from typing import Any

import django

from controlplane.celery import app
from tests.faults import techniques

__all__ = ["app"]

django.setup()
attempt: Any = import_module("optimizer.worker.attempt")  # its models exist only now
techniques.offer()
_supervise, _finish = attempt.supervise, attempt.effects.finish
_ENTRIES = {
    "optimizer.techniques.child:run": "tests.faults.techniques:run",
    "optimizer.evaluation.child:evaluate": "tests.faults.techniques:evaluate",
}


def supervise(*, entry: str, **rest: Any) -> Any:
    """The same child, but with the fault techniques in its table, too."""
    return _supervise(entry=_ENTRIES[entry], **rest)


def finish(job: Any, *, hold: Any, **rest: Any) -> Any:
    """A process that is frozen where everything is ready to be written: only the fence can stop it then."""
    if job.recipe[0]["technique"] == techniques.FREEZE and hold.claim.attempt == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    return _finish(job, hold=hold, **rest)


attempt.supervise = supervise
attempt.effects.finish = finish
