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
from deployments.targets.kubernetes.api import READ_S, WATCH_S, Api, Line, Object
from deployments.targets.kubernetes.kinds import Kind
from deployments.targets.port import Unreachable

RELIST_S = 600.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
PULSE_S = 5.0
BRIEF_S = 1.0
"""A watch that ends sooner was not one: the next waits."""

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class _Watch:
    """One kind's: where it stands (no `version`: to be listed), when that is listed again, and how long to wait after
    the next failure."""

    kind: Kind
    version: str = ""
    until: float = 0.0
    pause_s: float = 0.0
    line: Line = field(default_factory=Line)

    def failed(self, *, at_least_s: float = 0.0) -> float:
        """How long to wait now; longer each time, until something was heard."""
        wait_s = max(self.pause_s, at_least_s)
        self.pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, self.pause_s * 2))
        return wait_s


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
    relist_s: float = RELIST_S
    _items: dict[str, dict[str, Object]] = field(default_factory=dict)
    _synced: set[str] = field(default_factory=set)
    _watches: list[_Watch] = field(default_factory=list)
    _turn: threading.Condition = field(default_factory=threading.Condition)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _away: SlipwayError | None = None
    _returns: int = 0
    """How often it came back."""

    def start(self) -> "Followed":
        self._watches = [_Watch(kind=kind) for kind in self.kinds]
        for watch in self._watches:
            self._begin(self._follow, watch)
        self._begin(self._pulse)
        return self

    def stop(self) -> None:
        """Nothing waits for its threads: they end when they next look."""
        self._stopping.set()
        with self._turn:
            self._turn.notify_all()
        for watch in self._watches:
            watch.line.cut()

    def items(self, kind: Kind) -> list[Object]:
        """Raises Unreachable until everything was listed once, while the cluster does not answer, and then until it
        was listed again."""
        with self._turn:
            if self._away is not None:
                raise self._away
            if kind.kind not in self._synced:
                raise errors.away(self.api.connection.server, "it has not been listed yet")
            return list(self._items.get(kind.kind, {}).values())

    def _begin(self, work: Callable[..., None], *args: object) -> None:
        threading.Thread(target=work, args=args, daemon=True, name="follow").start()

    # Whether it is there

    def _pulse(self) -> None:
        """A silent watch says nothing about the cluster: it is asked."""
        while not self._stopping.is_set():
            self._heard(self._asked())
            self._stopping.wait(self.pulse_s)

    def _asked(self) -> SlipwayError | None:
        try:
            self.api.raw("/version", within_s=min(READ_S, self.pulse_s))
        except Unreachable as error:
            return error
        except SlipwayError:
            return None  # it answered, though not this question
        return None

    def _heard(self, away: SlipwayError | None) -> None:
        """What a line did not say meanwhile nobody knows, and a half-open one never says anything: it is cut, and all
        is listed again. A cluster that only asks to slow down goes on saying what changes."""
        lost = away is not None and away.code != errors.BUSY
        with self._turn:
            if self._away is not None and away is None:
                self._returns += 1
                self._turn.notify_all()
            self._away = away
            if lost:
                self._synced.clear()
        if lost:
            for watch in self._watches:
                watch.line.cut()

    # What is there

    def _follow(self, watch: _Watch) -> None:
        while not self._stopping.is_set():
            returns = self._returns
            try:
                self._once(watch)
                continue
            except errors.Expired:
                watch.version, wait_s = "", watch.failed()
            except SlipwayError as error:
                # A line that broke is tried anew at once; where the cluster answers, it says when.
                asked_s = error.retry_after_s if error.code != errors.AWAY else None
                wait_s = watch.failed(at_least_s=asked_s or FIRST_PAUSE_S)
                log.info("watch_broke_off", kind=watch.kind.kind, cause=error.title, again_in_s=wait_s)
            except Exception:  # a kind that nobody follows any more would look as if nothing happened
                log.exception("watch_failed", kind=watch.kind.kind)
                watch.version, wait_s = "", watch.failed(at_least_s=FIRST_PAUSE_S)
            self._rest(wait_s, returns)

    def _rest(self, wait_s: float, returns: int) -> None:
        """Shorter where the cluster came back meanwhile. Many watchers that lost one server must not come back in the
        same moment."""
        wait_s *= random.uniform(0.5, 1.5)  # noqa: S311
        with self._turn:
            self._turn.wait_for(lambda: self._stopping.is_set() or self._returns != returns, timeout=wait_s)

    def _once(self, watch: _Watch) -> None:
        """Lists where that is due, then watches until the line ends."""
        returns, now = self._returns, time.monotonic()
        if not watch.version or now >= watch.until or watch.kind.kind not in self._synced:
            listed = self.api.list(watch.kind, self.namespace, labels=self.labels)
            self._replace(watch.kind, listed.items)
            watch.version, watch.until = listed.version, now + self.relist_s
        with self._turn:
            watch.line, began = Line(), time.monotonic()
            if watch.kind.kind not in self._synced:
                return  # the cluster went away meanwhile, before there was this line to cut
        said = self.api.watch(
            watch.kind,
            self.namespace,
            version=watch.version,
            labels=self.labels,
            for_s=min(WATCH_S, watch.until - began),
            line=watch.line,
        )
        for event, one in said:
            if self._stopping.is_set():
                return
            watch.pause_s = 0.0
            self._take(watch, event, one)
        if time.monotonic() - began < BRIEF_S:
            self._rest(watch.failed(at_least_s=FIRST_PAUSE_S), returns)

    def _replace(self, kind: Kind, items: Iterable[Object]) -> None:
        fresh = {one["metadata"]["name"]: one for one in items}
        with self._turn:
            before = self._items.get(kind.kind, {})
            self._items[kind.kind] = fresh
            self._synced.add(kind.kind)
        for name in before.keys() | fresh.keys():
            old, new = before.get(name), fresh.get(name)
            if new is None or old is None or _version(old) != _version(new):
                self._tell(new or old or {})

    def _take(self, watch: _Watch, event: str, one: Object) -> None:
        """Versions only grow along a watch. One that was said already changes nothing; an older one is a doubt."""
        version = _version(one)
        if version == watch.version:
            return
        if _is_older(version, watch.version):
            raise errors.Expired(f"{version} was said after {watch.version}")
        watch.version = version
        if event == "BOOKMARK":
            return
        name = one["metadata"]["name"]
        one.setdefault("kind", watch.kind.kind)
        with self._turn:
            known = self._items.setdefault(watch.kind.kind, {})
            if event == "DELETED":
                known.pop(name, None)
            else:
                known[name] = one
        self._tell(one)

    def _tell(self, one: Object) -> None:
        try:
            self.changed(one)
        except Exception:  # whoever listens must not end what it listens to
            log.exception("listener_failed")


def _version(one: Object) -> str:
    return str(one["metadata"].get("resourceVersion", ""))


def _is_older(version: str, than: str) -> bool:
    """Whole numbers that grow, for all that a cluster's own API serves (KEP-5504); of others nothing can be said."""
    return version.isdecimal() and than.isdecimal() and int(version) < int(than)
