"""What every target promises, asked of each of them."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any, Protocol

import pytest

from controlplane.core.errors import Conflict, NotFound
from deployments.domain.plan import Op, Severity
from deployments.domain.workload import Batching, DesiredDeployment, ReplicaState, TargetStatus, Workload
from deployments.targets.local.client import NodeClient
from deployments.targets.local.target import LocalTarget
from deployments.targets.memory import MemoryTarget
from deployments.targets.port import StaleGeneration, StaleLive, Target, Unreachable
from tests.deployments.targets.conftest import ARTIFACT, Node, make_home
from tests.deployments.targets.kubernetes.kubelet import crashing
from tests.deployments.targets.kubernetes.room import Room, cluster_workload

_keys = count(1)


class Stage(Protocol):
    """A target and the hands that a test needs around it. `key` is a deployment that no other test has."""

    @property
    def key(self) -> str: ...

    @property
    def target(self) -> Target: ...

    def workload(self, revision: int = 1, replicas: int = 2, **fields: Any) -> Workload: ...

    def failing(self, revision: int) -> Workload:
        """A revision whose processes say `last_words` and end with code 1."""
        ...

    @property
    def last_words(self) -> str: ...

    @property
    def life(self) -> tuple[str, ...]:
        """The kinds of events of one replica's start, the wish's own first."""
        ...

    def address(self) -> str:
        """How the deployment's address ends."""
        ...

    @property
    def two_threads(self) -> tuple[str, ...]:
        """What a plan says of generation 2 with two threads for one."""
        ...

    @property
    def youngest_first(self) -> bool:
        """Whether the target chooses itself who goes, as a ReplicaSet does by its own lights."""
        ...

    @property
    def tells_last_words(self) -> bool:
        """Whether a replica's log can be asked for: the nodes of a real control plane are only played."""
        ...

    @property
    def away(self) -> str:
        """The code of a target that does not answer."""
        ...

    def until(self, key: str, holds: Callable[[TargetStatus], bool]) -> TargetStatus: ...

    def make_unreachable(self) -> Target: ...


class OwnPath:
    """Replicas behind a proxy that several deployments share."""

    key: str
    life = ("applied", "started", "ready")
    away = "node_unreachable"
    two_threads = (str(("generation", 1, 2)), str(("workloads.1.threads", 1, 2)))
    youngest_first = True
    tells_last_words = True

    def address(self) -> str:
        return f"/team/{self.key}"


class MemoryStage(OwnPath):
    def __init__(self, key: str) -> None:
        self.key = key
        self.target = MemoryTarget()
        self.last_words = "the model cannot be loaded"

    def workload(self, revision: int = 1, replicas: int = 2, **fields: Any) -> Workload:
        given: dict[str, Any] = {
            "stack": "fastapi",
            "model_name": "m",
            "model_version": "1",
            "artifact_sha256": "0" * 64,
            "artifact_path": "/m",
            "signature": {},
            "batching": Batching(),
        }
        return Workload(revision=revision, replicas=replicas, **given | fields)

    def failing(self, revision: int) -> Workload:
        log = (*(f"line {number} before the end" for number in range(60)), self.last_words)
        self.target.fail(self.key, revision=revision, reason="exited with code 1", log=log)
        return self.workload(revision, 1)

    def until(self, key: str, holds: Callable[[TargetStatus], bool]) -> TargetStatus:
        for _ in range(600):
            if holds(status := self.target.observe(key)):
                return status
            self.target.advance(0.1)
        raise AssertionError(status)

    def make_unreachable(self) -> Target:
        self.target.reachable = False
        return self.target


class LocalStage(OwnPath):
    """The node and Envoy, with the stand-in or with the real replica behind them."""

    def __init__(self, node: Node, key: str) -> None:
        self.key = key
        self.node = node
        self.target: Target = node.target
        self.workload = node.workload if node.stand_in else node.model_workload
        self.until = node.until
        self.last_words = "the model cannot be loaded" if node.stand_in else "The model cannot be opened"

    def failing(self, revision: int) -> Workload:
        if self.node.stand_in:
            return self.workload(revision, 1, environment={"STAND_IN_EXIT": "1"})
        # The digest fits, but the bytes are no model.
        path, digest = str(self.node.artifact), hashlib.sha256(ARTIFACT).hexdigest()
        return self.node.model_workload(revision, 1, artifact_path=path, artifact_sha256=digest)

    def make_unreachable(self) -> Target:
        return LocalTarget(NodeClient(f"unix:{self.node.home}/nobody.sock"))


class ClusterStage:
    """A cluster of the fake or a real one, whose nodes and pods are played."""

    life = ("applied", "started")
    away = "cluster_unreachable"
    last_words = "the model cannot be loaded"
    youngest_first = False

    def __init__(self, room: "Room", key: str) -> None:
        self.key = key
        self.room = room
        self.target: Target = room.target
        self.until = room.until
        self.tells_last_words = room.fake is not None
        at = f"Deployment {key}.spec.template.spec.containers.server.env.OMP_NUM_THREADS.value"
        self.two_threads = (str((at, "1", "2")),)

    def address(self) -> str:
        return f"http://{self.key}.{self.room.namespace}.svc"

    def workload(self, revision: int = 1, replicas: int = 2, **fields: Any) -> Workload:
        return cluster_workload(revision, replicas, **fields)

    def failing(self, revision: int) -> Workload:
        self.room.kubelet.plays[self.key, revision] = crashing
        self.room.says(self.key, revision, [*map(str, range(60)), self.last_words])
        return self.workload(revision, 1)

    def make_unreachable(self) -> Target:
        return self.room.unreachable()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Callable[[bool], Node]]:
    """One node with the stand-in and one with the real replica for the whole suite."""
    started: dict[bool, Node] = {}

    def get(stand_in: bool) -> Node:
        if stand_in not in started:
            started[stand_in] = Node(home=make_home(), stand_in=stand_in)
            started[stand_in].start()
        return started[stand_in]

    yield get
    for node in started.values():
        node.clean_up()


@pytest.fixture(
    params=[
        "memory",
        pytest.param("local", marks=pytest.mark.processes),
        pytest.param("local-fastapi", marks=pytest.mark.processes),
        "kubernetes-fake",
        pytest.param("kubernetes-real", marks=pytest.mark.processes),
    ]
)
def stage(request: pytest.FixtureRequest, nodes: Callable[[bool], Node]) -> Iterator[Stage]:
    key = f"c{next(_keys)}"  # no deployment of other tests in the same cluster is called so
    if request.param.startswith("kubernetes"):
        room = request.getfixturevalue(request.param.replace("-", "_"))
        yield ClusterStage(room, key)
        for status in room.target.observe_all():
            room.target.delete(status.key)
            room.until_gone(status.key)
        return
    if request.param == "memory":
        yield MemoryStage(key)
        return
    stage = LocalStage(nodes(request.param == "local"), key)
    yield stage
    for status in stage.target.observe_all():
        stage.target.delete(status.key)
        with pytest.raises(NotFound):
            stage.until(status.key, lambda status: False)


def wish(key: str, *workloads: Workload, generation: int, **fields: Any) -> DesiredDeployment:
    return DesiredDeployment(
        key=key, generation=generation, workloads=workloads, **({"path": f"/team/{key}"} | fields)
    )


def ready(number: int, *, revision: int | None = None) -> Callable[[TargetStatus], bool]:
    return lambda status: status.ready(revision) == number


def exactly(number: int) -> Callable[[TargetStatus], bool]:
    return lambda status: status.ready() == number == len(status.replicas)


def test_an_applied_wish_becomes_ready_replicas_behind_one_address(stage: Stage) -> None:
    stage.target.apply(wish(stage.key, stage.workload(1, 2), generation=1))
    status = stage.until(stage.key, ready(2))
    assert status.generation == 1
    assert status.address is not None
    assert status.address.endswith(stage.address())
    assert {one.revision for one in status.replicas} == {1}
    assert len({one.url for one in status.replicas}) == len({one.name for one in status.replicas}) == 2
    assert all(one.ready_at is not None and one.ready_at >= one.started_at for one in status.replicas)
    assert all(one.restarts == 0 and one.reason == "" for one in status.replicas)


def test_applying_the_same_wish_again_changes_nothing(stage: Stage) -> None:
    desired = wish(stage.key, stage.workload(1, 2), generation=1)
    stage.target.apply(desired)
    before = stage.until(stage.key, ready(2))
    seen = stage.target.events(stage.key)
    stage.target.apply(desired)
    assert stage.target.observe(stage.key).replicas == before.replicas
    assert stage.target.events(stage.key, after=seen[-1].id) == ()
    assert stage.target.desired(stage.key) == desired


def test_an_older_wish_and_another_one_of_the_same_generation_are_refused(stage: Stage) -> None:
    live = wish(stage.key, stage.workload(1, 1), generation=5)
    stage.target.apply(live)
    for generation in (4, 5):
        with pytest.raises(StaleGeneration) as caught:
            stage.target.apply(wish(stage.key, stage.workload(1, 7), generation=generation))
        assert caught.value.extra["live_generation"] == 5
    assert stage.target.desired(stage.key) == live


def test_a_plan_names_the_fields_and_holds_only_for_what_it_was_made_against(stage: Stage) -> None:
    first = wish(stage.key, stage.workload(1, 1), generation=1)
    plan = stage.target.plan(first)
    assert plan.live_generation is None
    assert {change.op for change in plan.diff} == {Op.ADD}
    stage.target.apply(first, expected_live_digest=plan.live_digest)

    second = wish(stage.key, stage.workload(1, 1, threads=2), generation=2)
    stale = stage.target.plan(second)
    changed = [(change.path, change.before, change.after) for change in stale.diff]
    assert {*stage.two_threads} <= {*map(str, changed)}
    stage.target.scale(stage.key, revision=1, replicas=2, generation=3)
    third = replace(second, generation=4)
    with pytest.raises(StaleLive):
        stage.target.apply(third, expected_live_digest=stale.live_digest)
    stage.target.apply(third, expected_live_digest=stage.target.plan(third).live_digest)


def test_nothing_live_is_a_state_that_can_be_expected_too(stage: Stage) -> None:
    first = wish(stage.key, stage.workload(1, 1), generation=1)
    plan = stage.target.plan(first)
    stage.target.apply(first)
    with pytest.raises(StaleLive):
        stage.target.apply(replace(first, generation=2), expected_live_digest=plan.live_digest)


def test_scaling_adds_replicas_and_takes_the_youngest_away_again(stage: Stage) -> None:
    stage.target.apply(wish(stage.key, stage.workload(1, 1), generation=1))
    oldest = stage.until(stage.key, exactly(1)).replicas[0]
    stage.target.scale(stage.key, revision=1, replicas=3, generation=2)
    assert oldest in stage.until(stage.key, exactly(3)).replicas
    stage.target.scale(stage.key, revision=1, replicas=1, generation=3)
    left = stage.until(stage.key, exactly(1)).replicas
    assert not stage.youngest_first or left == (oldest,)


def test_scaling_is_fenced_and_refuses_what_is_not_there(stage: Stage) -> None:
    stage.target.apply(wish(stage.key, stage.workload(1, 1), generation=4))
    with pytest.raises(StaleGeneration):
        stage.target.scale(stage.key, revision=1, replicas=3, generation=4)
    with pytest.raises(NotFound):
        stage.target.scale(stage.key, revision=9, replicas=3, generation=5)
    with pytest.raises(NotFound):
        stage.target.scale("unknown", revision=1, replicas=3, generation=5)


def test_scaling_to_zero_leaves_the_endpoint_and_no_replica(stage: Stage) -> None:
    stage.target.apply(wish(stage.key, stage.workload(1, 2), generation=1))
    stage.until(stage.key, ready(2))
    stage.target.scale(stage.key, revision=1, replicas=0, generation=2)
    status = stage.until(stage.key, exactly(0))
    assert status.address is not None
    stage.target.scale(stage.key, revision=1, replicas=1, generation=3)
    stage.until(stage.key, exactly(1))


def test_a_new_revision_comes_up_beside_the_old_one_and_then_stands_alone(stage: Stage) -> None:
    stage.target.apply(wish(stage.key, stage.workload(1, 2), generation=1))
    stage.until(stage.key, ready(2))
    stage.target.apply(wish(stage.key, stage.workload(1, 2), stage.workload(2, 1), generation=2))
    assert stage.until(stage.key, ready(1, revision=2)).ready(1) == 2
    stage.target.apply(wish(stage.key, stage.workload(2, 1), generation=3))
    assert {one.revision for one in stage.until(stage.key, exactly(1)).replicas} == {2}


def test_a_failing_replica_says_why_and_keeps_its_last_lines(stage: Stage) -> None:
    stage.target.apply(wish(stage.key, stage.workload(1, 1), stage.failing(2), generation=1))
    status = stage.until(
        stage.key, lambda status: any(one.restarts > 1 for one in status.replicas) and status.ready(1) == 1
    )
    broken = next(one for one in status.replicas if one.revision == 2)
    assert broken.state in (ReplicaState.FAILED, ReplicaState.STARTING)
    assert broken.reason.startswith("exited with code 1")
    assert "died" in {event.kind for event in stage.target.events(stage.key) if event.replica == broken.name}
    if not stage.tells_last_words:
        return
    assert len(broken.log_tail) <= 50
    assert stage.last_words in " ".join(broken.log_tail[-2:])
    assert stage.last_words in " ".join(stage.target.logs(stage.key, replica=broken.name))


def test_a_deleted_deployment_drains_away_and_its_fence_stays(stage: Stage) -> None:
    stage.target.apply(wish(stage.key, stage.workload(1, 2), generation=3))
    stage.until(stage.key, ready(2))
    stage.target.delete(stage.key)
    stage.target.delete(stage.key)
    assert stage.target.desired(stage.key) is None
    with pytest.raises(NotFound):
        stage.until(stage.key, lambda status: False)
    with pytest.raises(StaleGeneration):
        stage.target.apply(wish(stage.key, stage.workload(1, 1), generation=3))
    assert stage.target.observe_all() == ()
    stage.target.delete("never-there")


def test_a_path_belongs_to_one_deployment(stage: Stage) -> None:
    stage.target.apply(wish(stage.key, stage.workload(1, 0), generation=1))
    with pytest.raises(Conflict, match=f"/team/{stage.key}"):
        stage.target.apply(
            wish(f"{stage.key}-b", stage.workload(1, 0), generation=1, path=f"/team/{stage.key}")
        )


def test_all_deployments_are_observed_in_order(stage: Stage) -> None:
    first, second = stage.key, f"{stage.key}-b"
    for key in (second, first):
        stage.target.apply(wish(key, stage.workload(1, 1), generation=1))
        stage.until(key, ready(1))
    assert [status.key for status in stage.target.observe_all()] == [first, second]


def test_events_are_numbered_and_read_on_from_the_last(stage: Stage) -> None:
    stage.target.apply(wish(stage.key, stage.workload(1, 1), generation=1))
    stage.until(stage.key, ready(1))
    events = stage.target.events(stage.key)
    assert [event.id for event in events] == sorted({event.id for event in events})
    assert {*stage.life} <= {event.kind for event in events}
    assert stage.target.events(stage.key, after=events[0].id) == events[1:]
    assert stage.target.events("other") == ()


def test_what_is_unknown_is_not_found(stage: Stage) -> None:
    with pytest.raises(NotFound):
        stage.target.observe("unknown")
    with pytest.raises(NotFound):
        stage.target.logs("unknown", replica="r1-x")
    assert stage.target.desired("unknown") is None


def test_a_target_that_does_not_answer_says_so_everywhere(stage: Stage) -> None:
    desired = wish(stage.key, stage.workload(1, 1), generation=1)
    target = stage.make_unreachable()
    calls: list[Callable[[], object]] = [
        lambda: target.apply(desired),
        lambda: target.plan(desired),
        lambda: target.observe(stage.key),
        lambda: target.observe_all(),
        lambda: target.scale(stage.key, revision=1, replicas=1, generation=2),
        lambda: target.events(),
        lambda: target.delete(stage.key),
    ]
    for call in calls:
        with pytest.raises(Unreachable) as caught:
            call()
        assert caught.value.retry_after_s is not None
    findings = target.preflight(desired, live=None)
    assert [(one.severity, one.code) for one in findings] == [(Severity.ERROR, stage.away)]


def test_a_wish_that_can_come_true_has_no_finding_against_it(stage: Stage) -> None:
    findings = stage.target.preflight(wish(stage.key, stage.workload(1, 1), generation=1), live=None)
    assert [one for one in findings if one.severity is Severity.ERROR] == []
