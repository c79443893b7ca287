"""Makes the wishes so: compares what is wished with what runs, and starts or retires replicas.

Level-triggered: `reconcile` looks at everything and may run at any time, any number of times. Nothing here
remembers a command that is half done. The routes are written again after every change of a replica, before
anything else is done about it.
"""

import asyncio
import logging
import secrets
from collections import defaultdict
from datetime import UTC, datetime

import aiohttp

from controlplane.core.errors import NotFound
from deployments.domain.workload import DesiredDeployment, ReplicaState, TargetStatus, Workload
from deployments.targets.local.artifacts import Artifacts
from deployments.targets.local.events import EventLog
from deployments.targets.local.layout import NodeSettings
from deployments.targets.local.ports import Ports
from deployments.targets.local.processes import Process, started_from
from deployments.targets.local.proxy import DataProxy, Route
from deployments.targets.local.replicas import Replica, StartCommand, Surroundings
from deployments.targets.local.state import Record, StateFiles
from deployments.targets.wishes import Wishes

_log = logging.getLogger(__name__)
_TICK_S = 1.0
# Between “Envoy's main thread knows” and “its workers know” lies a moment.
_SETTLE_S = 0.1
_CONFIRM_S = 2.0


class Supervisor:
    def __init__(
        self,
        settings: NodeSettings,
        *,
        proxy: DataProxy,
        events: EventLog,
        session: aiohttp.ClientSession,
        start_command: StartCommand,
    ) -> None:
        self._settings = settings
        self._proxy = proxy
        self._events = events
        self._files = StateFiles(settings.state)
        self._wishes = Wishes(self._files.desired(), self._files.fences())
        self._replicas: defaultdict[str, dict[str, Replica]] = defaultdict(dict)
        self._lives: set[asyncio.Task[None]] = set()
        self._ports = Ports()
        self._stopping = False
        self.artifacts = Artifacts()
        self.start_command = start_command
        self._around = Surroundings(
            files=self._files,
            artifacts=self.artifacts,
            ports=self._ports,
            session=session,
            start_command=start_command,
            changed=self._changed,
            routed=self._routed,
            unrouted=self._unrouted,
            served_without=self._served_without,
            report=lambda kind, message, key, name: events.add(kind, message, key=key, replica=name),
        )

    # What can be asked of it

    def wish(self, key: str) -> DesiredDeployment | None:
        return self._wishes.get(key)

    def put(self, wish: DesiredDeployment, *, expected_live_digest: str | None = None) -> None:
        """Takes up the wish. Raises StaleGeneration, StaleLive, Conflict or StorageFull."""
        if self._wishes.accept(wish, expected_live_digest=expected_live_digest):
            self._files.save_desired(wish)
            self._wishes.commit(wish)
            self._events.add("applied", _summary(wish), key=wish.key)
            self.reconcile(wish.key)

    def scale(self, key: str, *, revision: int, replicas: int, generation: int) -> None:
        """Raises NotFound for an unknown key or revision, and what `put` raises."""
        self.put(self._wishes.scaled(key, revision=revision, replicas=replicas, generation=generation))

    def delete(self, key: str) -> None:
        """Repeatable. The generation stays on record, so a late wish cannot bring it back."""
        live = self._wishes.get(key)
        if live is None:
            return
        self._files.remove_desired(key, generation=live.generation)
        self._wishes.remove(key)
        self._events.add("deleted", "taken away", key=key)
        for replica in list(self._replicas[key].values()):
            replica.retire(drain_s=live.drain_s)
        self.reconcile(key)

    def known_keys(self) -> list[str]:
        return sorted(self._wishes.keys() | {key for key, replicas in self._replicas.items() if replicas})

    def status(self, key: str) -> TargetStatus:
        """Raises NotFound where nothing of this key is wished for or running."""
        wish, replicas = self._wishes.get(key), self._replicas.get(key)
        if wish is None and not replicas:
            raise NotFound("no_such_deployment", f"There is no deployment {key} on this node.")
        statuses = [replica.status() for replica in (replicas or {}).values()]
        return TargetStatus(
            key=key,
            generation=self._wishes.generation(key),
            address=self._settings.address(wish.path) if wish is not None else None,
            replicas=tuple(sorted(statuses, key=lambda one: (one.revision, one.started_at, one.name))),
            observed_at=datetime.now(UTC),
        )

    def replica(self, key: str, name: str) -> Replica:
        """Raises NotFound."""
        found = self._replicas.get(key, {}).get(name)
        if found is None:
            raise NotFound("no_such_replica", f"Deployment {key} has no replica {name}.")
        return found

    # Its life

    async def start(self) -> None:
        """Adopts what an earlier node left, ends what nobody recorded, and puts the proxy in front."""
        adopted = [(record, self._adopt(record)) for record in self._files.records()]
        known = {process.pid for _, process in adopted if process is not None}
        for pid in started_from(self._files.replicas, "config.json"):
            if pid not in known:
                _log.warning("process %d belongs to no recorded replica and is ended", pid)
                await Process(pid, child=None).stop(grace_s=1)
        for record, process in adopted:
            # Its last known state stands until it is asked: an adopted replica never leaves the endpoint.
            self._add(Replica(record, around=self._around), process)
        await self._proxy.start(self._routes())
        self.reconcile()

    async def run(self) -> None:
        """Looks at everything again each second; what happens in between is acted on at once."""
        while True:
            await asyncio.sleep(_TICK_S)
            self.reconcile()
            self._proxy.trim_log()
            for replicas in self._replicas.values():
                for replica in replicas.values():
                    replica.trim_log()

    def reconcile(self, *keys: str) -> None:
        if self._stopping:
            return
        for key in keys or self.known_keys():
            wish = self._wishes.get(key)
            mine = [replica for replica in self._replicas[key].values() if not replica.retired]
            wanted = {workload.revision: workload for workload in wish.workloads} if wish is not None else {}
            for revision in wanted.keys() | {replica.record.workload.revision for replica in mine}:
                of_revision = [one for one in mine if one.record.workload.revision == revision]
                self._reconcile_revision(key, wanted.get(revision), of_revision, wish.drain_s if wish else 5)
        self._proxy.apply(self._routes())

    async def stop(self) -> None:
        """Takes everything out of the proxy, drains and ends all replicas, then the proxy."""
        self._stopping = True
        drain_s = self._settings.stop_s - 2
        all_replicas = [replica for replicas in self._replicas.values() for replica in replicas.values()]
        for replica in all_replicas:
            replica.retire(drain_s=drain_s)
        if self._lives:
            # Some may have been draining for longer already than there is time for now.
            await asyncio.wait(self._lives, timeout=drain_s)
        for replica in all_replicas:
            replica.hurry()
        if self._lives:
            await asyncio.wait(self._lives, timeout=1)
        await self._proxy.stop()

    # How it does it

    def _reconcile_revision(
        self, key: str, wanted: Workload | None, running: list[Replica], drain_s: float
    ) -> None:
        number = wanted.replicas if wanted is not None else 0
        template = wanted.template() if wanted is not None else None
        current = [one for one in running if one.record.workload.template() == template]
        outdated = [one for one in running if one not in current]
        # The same revision with other content (a changed API key) is replaced one by one: an outdated replica
        # goes when a current one has become ready in its place.
        spared = max(0, number - sum(one.ready for one in current))
        for replica in [*_surplus(current, keep=number), *_surplus(outdated, keep=spared)]:
            replica.retire(drain_s=drain_s)
        if wanted is not None:
            for _ in range(number - len(current)):
                self._add(self._new(key, wanted), None)

    def _new(self, key: str, workload: Workload) -> Replica:
        name = f"r{workload.revision}-{secrets.token_hex(3)}"
        self._files.folder(key, name).mkdir(parents=True, mode=0o700)
        record = Record(
            key=key,
            name=name,
            workload=workload,
            port=0,
            pid=None,
            ticks=0,
            state=ReplicaState.STARTING,
            restarts=0,
            crashes=0,
            started_at=datetime.now(UTC),
            ready_at=None,
            reason="",
            ended="",
            log_tail=(),
        )
        return Replica(record, around=self._around)

    def _add(self, replica: Replica, process: Process | None) -> None:
        key, name = replica.record.key, replica.record.name
        self._replicas[key][name] = replica
        if replica.record.state is ReplicaState.DRAINING:
            replica.retire(drain_s=5)
        life = replica.begin(process)
        self._lives.add(life)
        life.add_done_callback(lambda done: self._ended(key, name, done))

    def _adopt(self, record: Record) -> Process | None:
        if record.pid is None:
            return None
        folder = self._files.folder(record.key, record.name)
        process = Process.adopt(record.pid, ticks=record.ticks, naming=folder)
        if process is not None:
            self._ports.hold(record.port)
            self._events.add("adopted", f"process {process.pid}", key=record.key, replica=record.name)
        return process

    def _ended(self, key: str, name: str, life: "asyncio.Task[None]") -> None:
        self._lives.discard(life)
        self._replicas[key].pop(name, None)
        self._files.forget_replica(key, name)
        if not life.cancelled() and (error := life.exception()) is not None:
            _log.error("replica %s of %s was given up", name, key, exc_info=error)
            self._events.add("failed", f"given up after a fault of the node: {error}", key=key, replica=name)
        self.reconcile(key)

    def _changed(self, key: str) -> None:
        self._proxy.apply(self._routes())
        # Not at once: a change may be part of a pass that is still going on.
        asyncio.get_running_loop().call_soon(self.reconcile, key)

    def _silent(self, key: str) -> frozenset[int]:
        """Revisions that are ready and get no request yet, or none any more."""
        wish = self._wishes.get(key)
        return frozenset(one.revision for one in wish.workloads if one.weight == 0) if wish else frozenset()

    def _routes(self) -> list[Route]:
        return [
            Route(
                key=key,
                path=wish.path if (wish := self._wishes.get(key)) is not None else None,
                ports=tuple(
                    one.record.port
                    for one in self._replicas.get(key, {}).values()
                    if one.takes_requests and one.record.workload.revision not in self._silent(key)
                ),
            )
            for key in self.known_keys()
        ]

    def _served_without(self, key: str, revision: int) -> bool:
        return any(
            one.ready and one.record.workload.revision != revision for one in self._replicas[key].values()
        )

    async def _routed(self, key: str, port: int) -> None:
        self._proxy.apply(self._routes())
        await self._settled(key, port, listed=True)

    async def _unrouted(self, key: str, port: int) -> None:
        await self._settled(key, port, listed=False)

    async def _settled(self, key: str, port: int, *, listed: bool) -> None:
        timeout_s = 0.5 if self._stopping else _CONFIRM_S
        await self._proxy.settled(key, port, listed=listed, timeout_s=timeout_s)
        await asyncio.sleep(_SETTLE_S)


def _surplus(replicas: list[Replica], *, keep: int) -> list[Replica]:
    """Which to give up: those that are not ready first, then the youngest."""
    best_first = sorted(replicas, key=lambda one: (not one.ready, one.record.started_at, one.record.name))
    return best_first[keep:]


def _summary(wish: DesiredDeployment) -> str:
    parts = [f"revision {one.revision} x {one.replicas}" for one in wish.workloads]
    return f"generation {wish.generation}: {', '.join(parts) or 'nothing'}"
