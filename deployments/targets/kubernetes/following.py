"""What stands in a namespace, kept up to date by watches: looking costs nothing, and a change is noticed at once.

List with a resourceVersion, watch from it with bookmarks, list again on 410, on any doubt, and every ten minutes.
Watches are an optimization: whoever decides something asks the cluster itself. Refused: the client's own Watch, which
hands 410 to its caller after one resume and has no timeout on a half-open line.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from controlplane.core.errors import SlipwayError
from deployments.targets.kubernetes import errors
from deployments.targets.kubernetes.api import Api, Object
from deployments.targets.kubernetes.kinds import Kind
from deployments.targets.port import Unreachable

RELIST_S = 600.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
PULSE_S = 5.0

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class Followed:
    """`items` is what is there now. `changed` is called, in a thread of ours, with each object that came, went or
    moved."""

    api: Api
    namespace: str
    labels: str
    kinds: Iterable[Kind]
    changed: Callable[[Object], None] = lambda one: None
    pulse_s: float = PULSE_S
    _items: dict[str, dict[str, Object]] = field(default_factory=dict)
    _synced: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _away: SlipwayError | None = None
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> "Followed":
        for kind in self.kinds:
            self._begin(self._follow, kind)
        self._begin(self._pulse)
        return self

    def stop(self) -> None:
        """Threads that hang in a watch end with the process; nothing waits for them."""
        self._stopping.set()

    def items(self, kind: Kind) -> list[Object]:
        """Raises Unreachable until everything was listed once, and while the cluster does not answer."""
        with self._lock:
            if self._away is not None:
                raise self._away
            if kind.kind not in self._synced:
                raise errors.away(self.api.connection.server, "it has not been listed yet")
            return list(self._items.get(kind.kind, {}).values())

    def _begin(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True, name="follow")
        self._threads.append(thread)
        thread.start()

    def _pulse(self) -> None:
        """A silent watch says nothing about the cluster: it is asked."""
        while not self._stopping.is_set():
            away: SlipwayError | None = None
            try:
                self.api.raw("/version")
            except Unreachable as error:
                away = error
            except SlipwayError:
                away = None  # it answered, though not this question
            with self._lock:
                self._away = away
            self._stopping.wait(self.pulse_s)

    def _follow(self, kind: Kind) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            try:
                self._once(kind)
                pause_s = FIRST_PAUSE_S
            except errors.Expired:
                continue
            except SlipwayError as error:
                log.info("watch_broke_off", kind=kind.kind, cause=error.title, again_in_s=pause_s)
                wait_s = max(pause_s, error.retry_after_s or 0)
                # Many watchers that lost one server must not come back in the same moment.
                self._stopping.wait(wait_s * random.uniform(0.5, 1.5))  # noqa: S311
                pause_s = min(LONGEST_PAUSE_S, pause_s * 2)

    def _once(self, kind: Kind) -> None:
        """Lists, then watches until it is time to list again."""
        listed = self.api.list(kind, self.namespace, labels=self.labels)
        self._replace(kind, listed.items)
        version, until = listed.version, time.monotonic() + RELIST_S
        while not self._stopping.is_set() and time.monotonic() < until:
            for event, one in self.api.watch(kind, self.namespace, version=version, labels=self.labels):
                version = one["metadata"]["resourceVersion"]
                if event != "BOOKMARK":
                    self._take(kind, event, one)
                if self._stopping.is_set():
                    return

    def _replace(self, kind: Kind, items: Iterable[Object]) -> None:
        fresh = {one["metadata"]["name"]: one for one in items}
        with self._lock:
            before = self._items.get(kind.kind, {})
            self._items[kind.kind] = fresh
            self._synced.add(kind.kind)
        for name in before.keys() | fresh.keys():
            old, new = before.get(name), fresh.get(name)
            if new is None or old is None or _version(old) != _version(new):
                self.changed(new or old or {})

    def _take(self, kind: Kind, event: str, one: Object) -> None:
        name = one["metadata"]["name"]
        one.setdefault("kind", kind.kind)
        with self._lock:
            known = self._items.setdefault(kind.kind, {})
            if event == "DELETED":
                known.pop(name, None)
            else:
                known[name] = one
        self.changed(one)


def _version(one: Object) -> str:
    return str(one["metadata"].get("resourceVersion", ""))
