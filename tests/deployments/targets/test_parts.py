"""The rules of the local target that need no process of their own to be seen."""

import asyncio
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from controlplane.core.errors import NotFound
from deployments import targets
from deployments.domain.workload import Batching, DesiredDeployment, Workload
from deployments.models import Target as Row
from deployments.targets.local import envoy_config
from deployments.targets.local.artifacts import Artifacts
from deployments.targets.local.events import EventLog
from deployments.targets.local.ports import Ports, is_free
from deployments.targets.local.processes import LogFile, Process, command_line, start_ticks
from deployments.targets.local.proxy import Route
from deployments.targets.local.replicas import look_again_s, pause_s
from deployments.targets.memory import MemoryTarget
from deployments.targets.port import StaleGeneration, StaleLive
from deployments.targets.wishes import Wishes


@given(crashes=st.integers(0, 10_000))
def test_the_pause_before_another_process_never_shrinks_and_stays_below_half_a_minute(crashes: int) -> None:
    assert 0 <= pause_s(crashes) <= pause_s(crashes + 1) <= 30


def test_a_first_death_is_answered_at_once_and_a_crash_loop_is_slowed() -> None:
    assert [pause_s(crashes) for crashes in range(10)] == [0, 0, 0.5, 1, 2, 4, 8, 16, 30, 30]


@given(st.floats(0, 600))
def test_a_start_is_noticed_within_a_tenth_of_its_time_and_never_asked_after_in_a_hurry(
    started_s: float,
) -> None:
    pause = look_again_s(started_s)
    assert 0.03 <= pause <= 1
    assert pause <= max(0.03, started_s / 10)


async def test_a_digest_is_computed_once_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, artifacts = tmp_path / "model", Artifacts()
    artifact.write_bytes(b"one")
    of_one = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert await artifacts.fault(artifact, sha256=of_one) is None
    with monkeypatch.context() as patched:
        patched.setattr("deployments.targets.local.artifacts._sha256", lambda path: pytest.fail("read again"))
        assert await artifacts.fault(artifact, sha256=of_one) is None
    artifact.write_bytes(b"two")
    fault = await artifacts.fault(artifact, sha256=of_one)
    assert fault is not None
    assert of_one in fault
    artifact.write_bytes(b"one")
    assert await artifacts.fault(artifact, sha256=of_one) is None


@given(lines=st.lists(st.text(max_size=30), max_size=30), wanted=st.integers(0, 10))
def test_a_log_tail_can_be_stored_and_shown_anywhere(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], wanted: int
) -> None:
    log = LogFile(tmp_path_factory.mktemp("log") / "log")
    log.path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass") + b"\xff\n")
    tail = log.tail(wanted)
    assert len(tail) <= wanted
    assert all("\0" not in line and "\n" not in line and "\x1b" not in line for line in tail)
    "".join(tail).encode()


def test_a_cut_log_keeps_its_last_whole_lines(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", cap_bytes=1000)
    log.path.write_text("".join(f"line {number}\n" for number in range(500)))
    log.trim()
    assert log.path.stat().st_size == 0
    assert log.tail(2) == ("line 498", "line 499")
    assert all(line.startswith("line ") for line in log.tail(1000))
    with log.path.open("a") as file:
        file.write("later\n")
    assert log.tail(2) == ("line 499", "later")
    log.begin()
    log.path.write_text("a new process\n")
    assert log.tail_of_this_process(5) == ("a new process",)


@pytest.mark.processes
async def test_a_process_is_adopted_only_under_its_own_start_time_and_name(tmp_path: Path) -> None:
    program = tmp_path / "name with ) and spaces.py"
    program.write_text("import time; time.sleep(60)")
    spawned = Process.spawn(
        [sys.executable, str(program)], folder=tmp_path, environment={}, log=tmp_path / "log"
    )
    async with asyncio.timeout(10):
        while str(program) not in command_line(spawned.pid):  # Empty for a moment after exec.
            await asyncio.sleep(0.01)
    assert spawned.ticks == start_ticks(spawned.pid) != 0
    assert Process.adopt(spawned.pid, ticks=spawned.ticks + 1, naming=tmp_path) is None
    assert Process.adopt(spawned.pid, ticks=spawned.ticks, naming=tmp_path / "other") is None
    assert Process.adopt(os.getpid(), ticks=spawned.ticks, naming=tmp_path) is None
    adopted = Process.adopt(spawned.pid, ticks=spawned.ticks, naming=tmp_path)
    assert adopted is not None
    await adopted.stop(grace_s=5)
    await asyncio.wait({spawned.exited}, timeout=5)
    assert spawned.exited.result() == "killed by signal 15"
    assert Process.adopt(spawned.pid, ticks=spawned.ticks, naming=tmp_path) is None


@pytest.mark.processes
async def test_what_a_process_started_goes_with_it(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    log = LogFile(tmp_path / "log")
    parent = Process.spawn([sys.executable, str(program)], folder=tmp_path, environment={}, log=log.path)
    async with asyncio.timeout(10):
        while not log.tail(1):
            await asyncio.sleep(0.01)
    child = int(log.tail(1)[0])
    pidfd = os.pidfd_open(child)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    await parent.stop(grace_s=5)
    async with asyncio.timeout(10):
        await ended.wait()
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)


def test_a_port_is_given_once_and_rests_before_it_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "randrange", lambda first, last: first)
    ports = Ports()
    first, second = ports.take(), ports.take()
    assert first != second
    ports.rest(first)
    assert ports.take() not in (first, second)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert not is_free("127.0.0.1", taken.getsockname()[1])


def test_routes_are_sorted_and_an_endpoint_that_is_going_has_none() -> None:
    wanted = [
        Route(key="b", path="/team/b", ports=(2, 1)),
        Route(key="a", path="/team/a", ports=()),
        Route(key="gone", path=None, ports=()),
    ]
    document = envoy_config.routes(wanted)
    (host,) = document["resources"][0]["virtual_hosts"]
    assert [one["match"]["prefix"] for one in host["routes"]] == ["/team/a/", "/team/b/", "/"]
    (assignment,) = envoy_config.endpoints(wanted[0])["resources"]
    (locality,) = assignment["endpoints"]
    ports = [one["endpoint"]["address"]["socket_address"]["port_value"] for one in locality["lb_endpoints"]]
    assert ports == [1, 2]
    assert len(envoy_config.clusters(Path("/x"), [one.key for one in wanted])["resources"]) == 3


async def test_events_are_read_again_after_a_restart_and_numbered_on(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for number in range(2500):
        log.add("kind", str(number), key=f"d{number % 2}")
    with path.open("a") as file:
        file.write('{"half a line')
    again = EventLog(path)
    assert again.after(0, key=None)[-1].id == 2500
    again.add("kind", "next")
    assert again.after(2500, key=None)[0].id == 2501
    assert {event.key for event in again.after(2000, key="d1")} == {"d1"}
    assert len(path.read_text().splitlines()) <= 2001


async def test_a_reader_is_woken_by_the_event_it_waits_for(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    waiting = asyncio.create_task(log.wait(0, key="d1", wait_s=5))
    await asyncio.sleep(0)
    log.add("kind", "of another", key="d2")
    log.add("kind", "of this", key="d1")
    assert [event.message for event in await waiting] == ["of this"]
    assert await log.wait(2, key="d1", wait_s=0) == ()


def workload(revision: int, replicas: int) -> Workload:
    return Workload(
        revision=revision,
        replicas=replicas,
        stack="fastapi",
        model_name="m",
        model_version="1",
        artifact_sha256="0" * 64,
        artifact_path="/m",
        signature={},
        batching=Batching(),
    )


class Fence(RuleBasedStateMachine):
    """Whatever is asked in whatever order, the live generation of a key only grows, through deletions too."""

    plans = Bundle("plans")

    def __init__(self) -> None:
        super().__init__()
        self.wishes = Wishes({}, {})
        self.newest: dict[str, int] = {}
        self.changes: dict[str, int] = {"a": 0, "b": 0}

    @rule(
        key=st.sampled_from("ab"),
        generation=st.integers(0, 12),
        replicas=st.integers(0, 3),
    )
    def apply(self, key: str, generation: int, replicas: int) -> None:
        self.take(
            DesiredDeployment(
                key=key, path=f"/t/{key}", generation=generation, workloads=(workload(1, replicas),)
            ),
            None,
        )

    @rule(target=plans, key=st.sampled_from("ab"), replicas=st.integers(0, 3))
    def plan(self, key: str, replicas: int) -> tuple[DesiredDeployment, str, int]:
        generation = self.newest.get(key, -1) + 1
        wish = DesiredDeployment(
            key=key, path=f"/t/{key}", generation=generation, workloads=(workload(1, replicas),)
        )
        return wish, self.wishes.plan(wish).live_digest, self.changes[key]

    @rule(plan=consumes(plans))
    def apply_plan(self, plan: tuple[DesiredDeployment, str, int]) -> None:
        wish, digest, changes = plan
        taken = self.take(wish, digest)
        if changes == self.changes[wish.key] - taken:
            assert taken, "a plan that is still true is taken"

    @rule(key=st.sampled_from("ab"), generation=st.integers(0, 12), replicas=st.integers(0, 3))
    def scale(self, key: str, generation: int, replicas: int) -> None:
        try:
            self.take(self.wishes.scaled(key, revision=1, replicas=replicas, generation=generation), None)
        except NotFound:
            assert self.wishes.get(key) is None

    @rule(key=st.sampled_from("ab"))
    def delete(self, key: str) -> None:
        if self.wishes.remove(key) is not None:
            self.changes[key] += 1

    @invariant()
    def remembers_the_newest(self) -> None:
        for key, newest in self.newest.items():
            assert self.wishes.generation(key) == newest

    def take(self, wish: DesiredDeployment, digest: str | None) -> bool:
        live = self.wishes.get(wish.key)
        try:
            new = self.wishes.accept(wish, expected_live_digest=digest)
        except StaleGeneration:
            assert wish.generation <= self.newest[wish.key]
            return False
        except StaleLive:
            return False
        if not new:
            assert live == wish
            return False
        assert wish.generation > self.newest.get(wish.key, -1)
        self.wishes.commit(wish)
        self.newest[wish.key] = wish.generation
        self.changes[wish.key] += 1
        return True


TestFence = Fence.TestCase


def test_time_in_memory_passes_only_when_it_is_told_to() -> None:
    target = MemoryTarget(start_s=30)
    target.apply(DesiredDeployment(key="d", path="/t/d", generation=1, workloads=(workload(1, 1),)))
    target.advance(29.9)
    assert target.observe("d").ready() == 0
    target.advance(0.1)
    assert target.observe("d").ready() == 1
    (replica,) = target.observe("d").replicas
    target.kill("d", replica=replica.name)
    target.advance(31)
    (after,) = target.observe("d").replicas
    assert (after.name, after.restarts, after.reason) == (replica.name, 1, "killed by signal 9")
    assert after.ready_at is not None


def test_a_mended_revision_becomes_ready() -> None:
    target = MemoryTarget()
    target.fail("d", revision=1, reason="exited with code 1")
    target.apply(DesiredDeployment(key="d", path="/t/d", generation=1, workloads=(workload(1, 1),)))
    target.advance(5)
    assert target.observe("d").ready() == 0
    target.mend("d", revision=1)
    target.advance(5)
    assert target.observe("d").ready() == 1


def test_targets_are_found_in_the_table(settings: Any) -> None:
    assert list(targets.TABLE) == ["local", "kubernetes", "memory"]
    here, other = (Row(kind="memory", name=name) for name in ("a", "b"))
    assert targets.of(here) is targets.of(other)
    assert targets.of(Row(kind="local")).desired.__name__ == "desired"
    with pytest.raises(KeyError):
        targets.of(Row(kind="moon"))


def test_the_node_needs_no_django() -> None:
    seen = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, deployments.targets.local.node, deployments.targets.local.proxy_envoy\n"
            "print([name for name in sys.modules if name.partition('.')[0] in ('django', 'kubernetes', 'numpy')])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.strip() == "[]"
