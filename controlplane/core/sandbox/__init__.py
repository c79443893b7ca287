"""The only place where bytes of users are opened: a child process with limits, no network and no secrets.

A parent calls `call` (one answer) or `Child` (follow a long run); the entry it names runs in the child:

    def entry(spec: dict, emit: Callable[[dict], None]) -> dict

Importable without Django. Refused: multiprocessing (a Celery pool process is daemonic and may have no such
children, and a fork would carry the worker's memory, secrets and connections into the child).
"""

from controlplane.core.sandbox.limits import MIB, Limits
from controlplane.core.sandbox.outcome import Message, Outcome, Refusal, SandboxFailure
from controlplane.core.sandbox.parent import Child, call

__all__ = ["MIB", "Child", "Limits", "Message", "Outcome", "Refusal", "SandboxFailure", "call"]
