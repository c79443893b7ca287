"""What happened on the node, numbered so that a reader can go on where it stopped, also after a restart."""

import asyncio
import json
import logging
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

from controlplane.core.errors import InvalidInput
from deployments.domain.workload import TargetEvent

_log = logging.getLogger(__name__)
_KEPT = 1000


class EventLog:
    """The last thousand events, in memory and in a file that is rewritten when it has grown to twice that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._events: deque[TargetEvent] = deque(_read(path), maxlen=_KEPT)
        self._lines = 2 * _KEPT
        self._happened = asyncio.Event()

    def add(self, kind: str, message: str, *, key: str = "", replica: str | None = None) -> None:
        last = self._events[-1].id if self._events else 0
        event = TargetEvent(
            id=last + 1, at=datetime.now(UTC), key=key, replica=replica, kind=kind, message=message
        )
        _log.info("%s", " ".join(part for part in (key, replica, kind, message) if part))
        self._events.append(event)
        self._keep(event)
        self._happened.set()
        self._happened = asyncio.Event()

    def after(self, last_seen: int, *, key: str | None) -> tuple[TargetEvent, ...]:
        return tuple(event for event in self._events if event.id > last_seen and key in (None, event.key))

    async def wait(self, last_seen: int, *, key: str | None, wait_s: float) -> tuple[TargetEvent, ...]:
        """As `after`, but waits so long for a first event."""
        found = self.after(last_seen, key=key)
        try:
            async with asyncio.timeout(wait_s):
                while not found:
                    await self._happened.wait()
                    found = self.after(last_seen, key=key)
        except TimeoutError:
            pass
        return found

    def _keep(self, event: TargetEvent) -> None:
        try:
            if self._lines >= 2 * _KEPT:
                self._path.write_text("".join(_line(one) for one in self._events))
                self._lines = len(self._events)
            else:
                with self._path.open("a") as file:
                    file.write(_line(event))
                self._lines += 1
        except OSError:
            # A full disk costs the history after a restart, not the work.
            self._lines = 2 * _KEPT


def _line(event: TargetEvent) -> str:
    return json.dumps(event.to_json()) + "\n"


def _read(path: Path) -> list[TargetEvent]:
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            found.append(TargetEvent.from_json(json.loads(line)))
        except (ValueError, InvalidInput):
            continue
    return found
