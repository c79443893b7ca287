"""The collector: scrapes replicas, keeps signals, and decides sizes.

One asyncio process. What touches the database runs in one thread beside the loop, so a slow database delays
charts, never the scrapes; while it is away the signals go on, decisions hold and windows wait. Refused: Celery
tasks per scrape, which cost more than the scrape.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from django.db import (
    IntegrityError,
    InterfaceError,
    OperationalError,
    close_old_connections,
    connections,
    transaction,
)
from redis.asyncio import Redis
from redis.exceptions import RedisError

from controlplane.core import bus
from controlplane.core.errors import SlipwayError, Unavailable
from deployments import stacks, targets
from deployments.autoscaling.cluster import Explainer
from deployments.autoscaling.external.labels import labels_of
from deployments.autoscaling.local import Autoscaler
from deployments.domain.hpa import InvalidHpa
from deployments.domain.vocabulary import MetricsMap
from deployments.domain.workload import ReplicaState, TargetStatus
from deployments.lives import Lives
from deployments.models import Deployment, Revision
from deployments.models import Target as TargetRow
from deployments.reconciler import record_observation
from deployments.selectors import active_rollout, is_read_only, status
from deployments.targets.port import Target, Way
from deployments.telemetry import store
from deployments.telemetry.backlog import Backlog
from deployments.telemetry.measuring import ASKED_PERIOD_S, TOLD_EVERY_S, Measuring
from deployments.telemetry.rollup import Window
from deployments.telemetry.scrape import Target as Scraped
from deployments.telemetry.sheet import SignalLabels
from deployments.telemetry.signals import DeploymentSignals
from deployments.telemetry.snapshot import write_signals
from deployments.transitions import request_reconcile

log = structlog.get_logger(__name__)

PERIOD_S = 2.0
PROXIED_PERIOD_S, PROXIED_TIMEOUT_S = 5.0, 3.0
"""An API server hands a page on."""
HURRY_S = 0.2
"""Between two looks at what moved in clusters: a rollout moves a dozen objects at once."""
PORTION = 2000
"""Windows that are written in one go: what an outage left is caught up with while the periods go on."""
SCRAPED = frozenset({ReplicaState.READY, ReplicaState.NOT_READY, ReplicaState.DRAINING})


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A deployment as this period sees it.

    `seen` is None where its target runs nothing of it. While the target cannot be reached (`reached` is False)
    it is what was last seen: replicas go on serving when a node is gone, so they are measured as before.
    """

    deployment: Deployment
    governing: Revision | None
    reached: bool
    seen: TargetStatus | None
    way: Way | None = None

    @property
    def scaler(self) -> str:
        """Who decides its size: on a target that is no cluster, we. Empty where nothing governs."""
        if self.governing is None:
            return ""
        return str((self.governing.spec.get("cluster") or {}).get("autoscaler", "slipway"))

    @property
    def ready(self) -> int | None:
        """How many replicas are ready now; None while nobody can say."""
        if not self.reached:
            return None
        return self.seen.ready() if self.seen else 0


@dataclass(kw_only=True)
class Collector:
    redis: Redis
    period_s: float = PERIOD_S
    waiting: Backlog = field(default_factory=Backlog)
    _autoscaler: Autoscaler = field(default_factory=Autoscaler)
    _explainer: Explainer = field(default_factory=Explainer)
    _lives: Lives = field(default_factory=Lives)
    _watched: dict[str, Watched] = field(default_factory=dict)
    _labels: dict[str, SignalLabels] | None = None
    """Of those that autoscalers elsewhere ask for; None until the first look, when it is not known who there is."""
    _maps: dict[str, MetricsMap] = field(default_factory=dict)
    _moved: set[str] = field(default_factory=set)
    """Keys of deployments that moved in a cluster and were not looked at since."""
    _bursts: dict[str, bool] = field(default_factory=dict)
    """Keys of deployments at which many wait since the period began, and whether that was decided on."""
    _stirred: asyncio.Event = field(default_factory=asyncio.Event)
    _database: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "database"))

    def __post_init__(self) -> None:
        self._here = Measuring(period_s=self.period_s, burst=self._burst)
        self._asked = Measuring(period_s=ASKED_PERIOD_S, burst=self._burst)
        self._proxied = Measuring(period_s=PROXIED_PERIOD_S, timeout_s=PROXIED_TIMEOUT_S, burst=self._burst)
        self._beats = (self._here, self._asked, self._proxied)
        # Epoch seconds that only grow: the autoscaler's windows outlive this process, and clocks are set back.
        self._monotonic_began_s = time.time() - time.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`; then what is in open windows is written."""
        self._loop = asyncio.get_running_loop()
        beside = [asyncio.create_task(one.scraper.run()) for one in self._beats]
        beside.append(asyncio.create_task(self._tell_elsewhere()))
        due = time.monotonic()
        while not stopping.is_set():
            await self._period()
            due = max(due + self.period_s, time.monotonic())
            await self._between(stopping, due)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        for one in self._beats:
            self.waiting.add(one.windows.close_all())
        while self.waiting and await self._store():
            continue
        await self._in_database(connections.close_all)
        self._database.shutdown()

    async def _between(self, stopping: asyncio.Event, due: float) -> None:
        """Until the next period. What moves in a cluster meanwhile is shown before it, and bursts are decided on."""
        stopped = asyncio.create_task(stopping.wait())
        while not stopping.is_set() and (left_s := due - time.monotonic()) > 0:
            stirred = asyncio.create_task(self._stirred.wait())
            await asyncio.wait({stopped, stirred}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            stirred.cancel()
            if self._stirred.is_set():
                self._stirred.clear()
                await self._hurry()
                await asyncio.wait({stopped}, timeout=min(HURRY_S, max(0.0, due - time.monotonic())))
        stopped.cancel()

    async def _hurry(self) -> None:
        moved, self._moved = self._moved, set()
        bursts = {key for key, decided in self._bursts.items() if not decided}
        self._bursts |= dict.fromkeys(bursts, True)
        watched = await self._in_database(self._look_again, moved | bursts) or []
        waiting = [one for one in watched if one.deployment.key in bursts and one.scaler == "slipway"]
        if waiting:
            now = time.monotonic()
            signals = self._peek(waiting, now=now)
            await self._in_database(self._decide, waiting, signals, self._monotonic_began_s + now)

    def _stir(self, key: str) -> None:
        self._moved.add(key)
        self._stirred.set()

    def _burst(self, key: str) -> None:
        """Once in a period: a queue that goes on growing is the next period's."""
        if key not in self._bursts:
            self._bursts[key] = False
            self._stirred.set()

    async def _period(self) -> None:
        self._bursts.clear()
        watched = await self._in_database(self._look)
        if watched is not None:
            self._watched = {one.deployment.key: one for one in watched}
            found = {key: labels_of(one.deployment) for key, one in self._watched.items()}
            self._labels = {key: labels for key, labels in found.items() if labels is not None}
        now, wall = time.monotonic(), time.time()
        for measuring in self._beats:
            mine = {key: one for key, one in self._watched.items() if self._by(one) is measuring}
            measuring.expect({key: self._targets(one) for key, one in mine.items()}, now=now)
        signals = {
            key: self._by(one).signals(key, now=now, at_wall=wall, ready=one.ready)
            for key, one in self._watched.items()
        }
        await self._publish(signals.values())
        if watched is not None:
            await self._in_database(self._decide, watched, signals, self._monotonic_began_s + now)
        for measuring in self._beats:
            self.waiting.add(measuring.close(wall))
        await self._store()

    def _by(self, watched: Watched) -> Measuring:
        """The beat that this deployment goes by."""
        if watched.way is not None:
            return self._proxied
        return self._asked if watched.deployment.target.is_cluster else self._here

    async def _store(self) -> bool:
        """Writes the oldest windows that wait; False while the database is away, and they go on waiting.

        What was committed though its reply was lost is written again, which changes nothing.
        """
        portion = self.waiting.first(PORTION)
        written = await self._in_database(self._write, portion, list(self._watched.values()))
        if written:
            self.waiting.written(len(portion))
        return bool(written)

    async def _in_database[**P, R](self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Runs in the database's thread; None while the database is away."""
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._database, lambda: work(*args, **kwargs)
            )
        except (OperationalError, InterfaceError) as error:
            log.warning("database_unavailable", cause=str(error).splitlines()[0])
            await asyncio.get_running_loop().run_in_executor(self._database, close_old_connections)
            return None

    def _look(self) -> list[Watched]:
        """Deployments and what their targets say now. Two queries, and one call for each target that is no cluster;
        clusters are followed by watches."""
        close_old_connections()
        rows = Deployment.objects.select_related("team", "target", "live_revision", "imported_from")
        seen = _observe_all({row.target_id: row.target for row in rows}, self._told)
        return [self._watch(row, seen[row.target_id], keep=True) for row in rows if not is_read_only(row)]

    def _look_again(self, keys: Iterable[str]) -> list[Watched]:
        """At these deployments alone. One query, and a call for each target of theirs that is no cluster."""
        ids = [int(key.removeprefix("d")) for key in keys if key.removeprefix("d").isdecimal()]
        rows = Deployment.objects.select_related("team", "target", "live_revision", "imported_from")
        rows = rows.filter(pk__in=ids)
        seen = _observe_all({row.target_id: row.target for row in rows}, self._told)
        return [self._watch(row, seen[row.target_id], keep=False) for row in rows if not is_read_only(row)]

    def _watch(self, row: Deployment, statuses: Mapping[str, TargetStatus] | None, *, keep: bool) -> Watched:
        """What others run (it is read-only) speaks no words of ours. `keep`: in the replicas' lives too."""
        rollout = active_rollout(row) if row.live_revision is None else None
        if statuses is not None and (row.key in statuses or row.observed):
            self._record(row, statuses.get(row.key))
            if keep:
                self._lives.keep(row, statuses.get(row.key))
        return Watched(
            deployment=row,
            governing=row.live_revision or (rollout.to_revision if rollout else None),
            reached=statuses is not None,
            seen=status(row) if statuses is None else statuses.get(row.key),
            way=_way(row.target),
        )

    def _told(self, key: str) -> None:
        """By a thread that follows a cluster, which outlives the loop."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stir, key)

    def _record(self, row: Deployment, seen: TargetStatus | None) -> None:
        """What moved in a cluster wakes the reconciler of a rollout, which there looks seldom by itself."""
        if record_observation(row, seen) and row.target.is_cluster and active_rollout(row) is not None:
            request_reconcile(row.pk)

    def _targets(self, watched: Watched) -> list[Scraped]:
        if watched.seen is None:
            return []
        return [
            Scraped(
                deployment=watched.deployment.key,
                revision=one.revision,
                replica=one.name,
                url=watched.way.page(one) if watched.way else f"{one.url}/metrics",
                metrics=self._map(watched),
                incarnation=str(one.pid or one.restarts),
                way=watched.way,
            )
            for one in watched.seen.replicas
            if one.state in SCRAPED and one.url
        ]

    def _map(self, watched: Watched) -> MetricsMap:
        key = watched.governing.spec["stack"] if watched.governing else "fastapi"
        if key not in self._maps:
            self._maps[key] = MetricsMap.of(
                {str(word): name for word, name in stacks.load(key).metrics.items()}
            )
        return self._maps[key]

    async def _publish(self, signals: Iterable[DeploymentSignals]) -> None:
        try:
            await write_signals(self.redis, signals, labels=self._labels)
        except (RedisError, OSError) as error:
            log.warning("snapshot_not_written", cause=str(error))

    async def _tell_elsewhere(self) -> None:
        """For ever, between the periods too and while the database is away."""
        while True:
            await asyncio.sleep(TOLD_EVERY_S)
            asked = [self._watched[key] for key in self._labels or {}]
            if asked:
                await self._publish(self._peek(asked, now=time.monotonic()).values())

    def _peek(self, watched: Iterable[Watched], *, now: float) -> dict[str, DeploymentSignals]:
        """By key, between two periods: counted in no window."""
        wall = time.time()
        return {
            one.deployment.key: self._by(one).peek(one.deployment.key, now=now, at_wall=wall)
            for one in watched
        }

    def _decide(
        self, watched: Iterable[Watched], signals: Mapping[str, DeploymentSignals], now_s: float
    ) -> None:
        for one in watched:
            row = one.deployment
            if one.governing is None or row.removing or row.autoscaling_paused:
                continue
            if one.seen is None or not one.reached:
                continue
            try:
                match one.scaler:
                    case "slipway":
                        self._autoscaler.sync(
                            row, one.governing, signals=signals[row.key], seen=one.seen, now_s=now_s
                        )
                    case "hpa" | "keda":
                        self._explainer.look(
                            row, one.governing, signals=signals[row.key], seen=one.seen, now_s=now_s
                        )
            except (IntegrityError, SlipwayError, InvalidHpa) as error:
                # One that was removed meanwhile, or cannot be read, must not stop the others.
                log.warning("no_decision", deployment=row.key, cause=str(error).splitlines()[0])

    def _write(self, windows: list[Window], watched: Iterable[Watched]) -> bool:
        living = [one.deployment for one in watched]
        try:
            self._write_of(windows, living)
        except IntegrityError:  # a deployment went between the look and the commit; the others stay
            self._write_of(windows, living)
        return True

    def _write_of(self, windows: list[Window], living: list[Deployment]) -> None:
        with transaction.atomic():
            existing = Deployment.objects.filter(pk__in=[row.pk for row in living]).values_list(
                "pk", flat=True
            )
            store.write(windows, living=existing)
            bus.publish_each((f"metrics:{row.pk}", row.team_id) for row in living)


def _observe_all(
    rows: Mapping[int, TargetRow], moved: Callable[[str], None]
) -> dict[int, dict[str, TargetStatus] | None]:
    """By the target's id; None where it cannot be reached or opened. The rows of one machine are one target. `moved`
    gets the keys of deployments of which something moved, from targets that can be followed."""
    asked: dict[int, dict[str, TargetStatus] | None] = {}
    found: dict[int, dict[str, TargetStatus] | None] = {}
    for pk, row in rows.items():
        try:
            target = targets.of(row)
            if id(target) not in asked:
                asked[id(target)] = _statuses(target, row.kind, moved)
            found[pk] = asked[id(target)]
        except SlipwayError as error:
            log.warning("target_not_opened", target=row.name, cause=str(error))
            found[pk] = None
    return found


def _way(row: TargetRow) -> Way | None:
    if not row.is_cluster:
        return None
    try:
        return targets.of(row).way
    except SlipwayError:  # told where it was observed
        return None


def _statuses(target: Target, kind: str, moved: Callable[[str], None]) -> dict[str, TargetStatus] | None:
    try:
        target.follow(moved)
        return {status.key: status for status in target.observe_all()}
    except Unavailable as error:
        log.warning("target_unreachable", kind=kind, cause=error.title)
        return None
