"""The node dies, restarts, stops and is lied to; what serves goes on serving."""

import asyncio
import hashlib
import http.client
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from controlplane.core.errors import SlipwayError
from deployments.domain.plan import Severity
from deployments.domain.workload import ReplicaState, TargetStatus
from deployments.targets.local.client import NodeClient
from tests.deployments.targets.conftest import ARTIFACT, Node, free_port
from tests.deployments.targets.load import load
from tests.toolchains import as_openvino, interpreter

pytestmark = pytest.mark.processes

KEY = "d1"


def ready(number: int) -> Callable[[TargetStatus], bool]:
    return lambda status: status.ready() == number == len(status.replicas)


def refused_start(node: Node) -> str:
    """Starts a node that must refuse, and returns what it says."""
    process = node.popen()
    assert process.wait(timeout=15) == 1
    return node.log().splitlines()[-1]


@pytest.mark.faults
async def test_a_killed_node_leaves_the_endpoint_serving_and_the_next_one_adopts_it(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 2), generation=1))
    before = await asyncio.to_thread(node.until, KEY, ready(2))
    proxy = node.health()["proxy_pid"]
    async with load(node.infer_url()) as running:
        await running.more(30)
        node.kill()
        await running.more(100)
        await asyncio.to_thread(node.start)
        after = node.target.observe(KEY)
        await running.more(100)
    assert running.failed == []
    assert {(one.name, one.pid, one.restarts) for one in after.replicas} == {
        (one.name, one.pid, 0) for one in before.replicas
    }
    assert node.health()["proxy_pid"] == proxy
    assert after.ready() == 2
    # Adopted replicas are watched like own ones.
    victim = after.replicas[0].pid
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    await asyncio.to_thread(
        node.until, KEY, lambda status: status.ready() == 2 and any(one.restarts for one in status.replicas)
    )


@pytest.mark.faults
def test_what_died_while_the_node_was_away_is_replaced(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 2), generation=1))
    before = node.until(KEY, ready(2))
    proxy = node.health()["proxy_pid"]
    node.kill()
    victim = before.replicas[0]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    os.kill(proxy, signal.SIGKILL)
    node.start()
    after = node.until(KEY, ready(2))
    assert {one.pid for one in before.replicas[1:]} < {one.pid for one in after.replicas}
    assert (
        next(one for one in after.replicas if one.name == victim.name).reason
        == "ended while the node was away"
    )
    assert node.health()["proxy_pid"] not in (None, proxy)


def test_a_wish_changed_by_nobody_survives_a_stop_and_a_start(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 2), generation=7))
    node.until(KEY, ready(2))
    last = node.target.events()[-1].id
    node.terminate()
    node.start()
    assert node.until(KEY, ready(2)).generation == 7
    assert node.target.events(after=last)[0].id == last + 1


@pytest.mark.faults
async def test_sigterm_under_load_drains_and_leaves_no_process(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 3), generation=1))
    await asyncio.to_thread(node.until, KEY, ready(3))
    assert len(node.processes()) == 4
    async with load(node.infer_url(), query="?slow_ms=300") as running:
        await running.more(60)
        took_s = await asyncio.to_thread(node.terminate)
    assert took_s < 8
    assert node.processes() == {}
    # Requests that were taken are finished; later ones are told to come back, until nobody listens any more.
    answered = {(one.status, one.detail) for one in running.answers if one.status != 0}
    assert answered == {(200, ""), (503, "no_replica_ready")}
    first_refused = min(one.sent for one in running.failed)
    assert all(one.sent > first_refused for one in running.answers if one.status == 0)


def test_sigterm_ends_a_replica_that_does_not_want_to(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 1), generation=1))
    pid = node.until(KEY, ready(1)).replicas[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    assert node.terminate() < 8
    assert node.processes() == {}


async def test_sigterm_does_not_wait_for_a_drain_that_has_more_time_than_it(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 1), generation=1, drain_s=60))
    await asyncio.to_thread(node.until, KEY, ready(1))
    async with load(node.infer_url(), per_s=20, query="?slow_ms=30000") as running:
        await asyncio.sleep(0.3)
        node.target.delete(KEY)
        took_s = await asyncio.to_thread(node.terminate)
    assert took_s < 8
    assert node.processes() == {}
    assert 200 not in {one.status for one in running.answers}


async def test_a_replica_is_ready_only_once_the_proxy_passes_requests_to_it(node: Node) -> None:
    proxy = node.health()["proxy_pid"]
    async with aiohttp.ClientSession() as session:
        os.kill(proxy, signal.SIGSTOP)
        node.target.apply(node.wish(node.workload(1, 1), generation=1))
        async with asyncio.timeout(10):
            while not await answers(session, node.target.observe(KEY).replicas[0].url):
                await asyncio.sleep(0.02)
        for _ in range(15):  # The node asks every 0.03 s.
            assert node.target.observe(KEY).replicas[0].state is ReplicaState.STARTING
            await asyncio.sleep(0.02)
        os.kill(proxy, signal.SIGCONT)
        await asyncio.to_thread(node.until, KEY, ready(1))
        async with session.post(node.infer_url(), data=b"{}") as response:
            assert response.status == 200


async def answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/v2/health/ready") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


@pytest.mark.faults
def test_a_killed_proxy_is_back_on_the_same_port(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 1), generation=1))
    node.until(KEY, ready(1))
    old = node.health()["proxy_pid"]
    last = node.target.events()[-1].id
    os.kill(old, signal.SIGKILL)
    killed = time.monotonic()
    while not any("started Envoy" in event.message for event in node.target.events(after=last, wait_s=2)):
        assert time.monotonic() < killed + 5
    assert time.monotonic() < killed + 1
    assert node.health()["proxy_pid"] != old
    connection = http.client.HTTPConnection("127.0.0.1", node.data_port, timeout=5)
    connection.request("POST", f"/team/{KEY}/v2/models/m/infer", body=b"{}")
    assert connection.getresponse().status == 200
    connection.close()


def test_two_nodes_on_one_home_are_refused_in_a_sentence(node: Node) -> None:
    assert node.process is not None
    said = refused_start(node)
    assert said == f"Another node (process {node.process.pid}) already runs for {node.home}. Stop it first."
    assert node.target.observe_all() == ()


def test_a_taken_data_port_is_refused_in_a_sentence(node: Node, resting_node: Node, home: Path) -> None:
    other = Node(home=home, data_port=node.data_port)
    assert refused_start(other).startswith(f"Port {node.data_port} on 127.0.0.1 is taken by another program.")
    assert other.processes() == {}


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"SLIPWAY_DATA_PORT": "eighty"}, "SLIPWAY_DATA_PORT must be a port"),
        ({"SLIPWAY_PROXY": "nginx"}, "SLIPWAY_PROXY is “nginx”"),
        ({"SLIPWAY_NODE_URL": "http://127.0.0.1:1"}, "SLIPWAY_NODE_TOKEN must be set"),
        ({"SLIPWAY_HOME": "/tmp/" + "x" * 100}, "too long for a socket"),
        ({"SLIPWAY_NODE_URL": "unix:/tmp/" + "x" * 110}, "too long for a socket"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_a_sentence(
    resting_node: Node, environment: dict[str, str], sentence: str
) -> None:
    resting_node.environment = environment
    assert sentence in refused_start(resting_node)


def test_a_home_too_long_for_a_socket_serves_through_a_short_one(resting_node: Node) -> None:
    """The proxy's socket lies beside the node's own."""
    resting_node.environment = {
        "SLIPWAY_HOME": str(resting_node.home / ("long" * 20) / "a name"),
        "SLIPWAY_NODE_URL": resting_node.url,
    }
    (resting_node.home / "run").mkdir(mode=0o700)
    resting_node.start()
    resting_node.target.apply(resting_node.wish(resting_node.workload(1, 1), generation=1))
    assert resting_node.until(KEY, ready(1)).ready() == 1


@pytest.mark.faults
def test_an_artifact_with_other_bytes_is_never_started(node: Node) -> None:
    node.artifact.write_bytes(ARTIFACT[:-1] + b"X")
    desired = node.wish(node.workload(1, 1), generation=1)
    findings = node.target.preflight(desired, live=None)
    assert [(one.severity, one.code) for one in findings] == [(Severity.ERROR, "artifact_integrity")]
    node.target.apply(desired)
    status = node.until(KEY, lambda status: status.replicas[0].state is ReplicaState.FAILED)
    assert status.replicas[0].reason.startswith("integrity: the artifact's SHA-256 is ")
    assert status.replicas[0].pid is None
    assert "started" not in {event.kind for event in node.target.events(KEY)}

    node.artifact.write_bytes(ARTIFACT)
    node.until(KEY, ready(1))

    # Bytes that rot under a running replica stop its successor, not itself.
    node.artifact.unlink()
    pid = node.target.observe(KEY).replicas[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    status = node.until(KEY, lambda status: status.replicas[0].reason.startswith("integrity"))
    assert "cannot be read (No such file or directory)" in status.replicas[0].reason


def test_a_replica_that_never_becomes_ready_is_replaced_with_a_reason(node: Node) -> None:
    shy = node.workload(1, 1, environment={"STAND_IN_NEVER_READY": "1"}, start_deadline_s=2)
    node.target.apply(node.wish(shy, generation=1))
    name = node.target.observe(KEY).replicas[0].name
    # On a busy machine the first process may not have come to its first line.
    node.until(KEY, lambda status: len(node.target.logs(KEY, replica=name)) > 0)
    status = node.until(KEY, lambda status: len(status.replicas[0].log_tail) > 0)
    assert status.replicas[0].restarts > 0
    assert status.replicas[0].reason == "not ready after 2 s"
    assert status.replicas[0].log_tail[0].startswith("listening")


AUTOGROUP = Path("/proc/self/autogroup")


@pytest.mark.skipif(
    not AUTOGROUP.exists(), reason="not run: this kernel weighs no sessions against each other"
)
def test_a_start_beside_another_revision_that_serves_gives_way_until_it_is_ready(node: Node) -> None:
    def nice(pid: int | None) -> str:
        return Path(f"/proc/{pid}/autogroup").read_text().split()[-1]

    node.target.apply(node.wish(node.workload(1, 1), generation=1))
    first = node.until(KEY, ready(1)).replicas[0]
    shy = node.workload(2, 1, environment={"STAND_IN_NEVER_READY": "1"})
    node.target.apply(node.wish(node.workload(1, 1), shy, generation=2))
    starting = node.until(KEY, lambda seen: any(one.pid for one in seen.replicas if one.revision == 2))
    assert {one.revision: nice(one.pid) for one in starting.replicas} == {1: "0", 2: "10"}
    node.target.apply(node.wish(node.workload(1, 2), node.workload(3, 1), generation=3))
    wider = node.until(KEY, lambda seen: seen.ready(1) == 2 and seen.ready(3) == 1)
    served = [one for one in wider.replicas if one.revision != 2]
    node.until(KEY, lambda seen: {nice(one.pid) for one in served} == {"0"})
    assert first.pid in {one.pid for one in served}


def test_an_unknown_stack_is_found_before_and_said_after(node: Node) -> None:
    desired = node.wish(node.workload(1, 1, stack="abacus"), generation=1)
    assert [one.code for one in node.target.preflight(desired, live=None)] == ["stack_unavailable"]
    node.target.apply(desired)
    status = node.until(KEY, lambda status: status.replicas[0].state is ReplicaState.FAILED)
    assert status.replicas[0].reason == "cannot be started: there is no stack “abacus”"


def test_a_stack_that_runs_in_containers_only_is_found_before_with_what_to_do_and_said_after(
    resting_node: Node,
) -> None:
    node = resting_node
    node.stand_in = False
    node.start()
    desired = node.wish(node.model_workload(1, 1, stack="triton"), generation=1)
    (finding,) = node.target.preflight(desired, live=None)
    assert (finding.severity, finding.code) == (Severity.ERROR, "stack_not_here")
    assert finding.title == "The stack Triton runs in containers only, and this target starts processes."
    assert finding.action == "Deploy it to a Kubernetes cluster, or make a revision with the stack fastapi."
    engine = node.wish(node.model_workload(1, 1, stack="triton", artifact_format="tensorrt"), generation=1)
    (finding,) = node.target.preflight(engine, live=None)
    assert finding.action == (
        "Deploy it to a Kubernetes cluster with a GPU that the engine was built for, or make a revision with a "
        "variant that is ONNX or OpenVINO IR."
    )
    node.target.apply(desired)
    status = node.until(KEY, lambda status: status.replicas[0].state is ReplicaState.FAILED)
    assert status.replicas[0].reason == "cannot be started: the stack Triton runs in containers only"


async def test_a_format_whose_toolchain_is_missing_is_found_before_and_served_once_it_is_there(
    resting_node: Node,
) -> None:
    toolchain = interpreter("openvino").parents[1]
    node, installed = resting_node, resting_node.home / "toolchains"
    installed.mkdir()
    node.stand_in, node.environment = False, {"SLIPWAY_TOOLCHAINS": str(installed)}
    node.start()
    workload = node.model_workload(1, 1)
    path = as_openvino(Path(workload.artifact_path), signature=workload.signature, folder=node.home)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    workload = replace(workload, artifact_path=str(path), artifact_sha256=digest, artifact_format="openvino")
    desired = node.wish(workload, generation=1)
    (finding,) = node.target.preflight(desired, live=None)
    assert (finding.severity, finding.code) == (Severity.ERROR, "toolchain_missing")
    assert "make toolchains TOOLCHAINS=openvino" in finding.action
    node.target.apply(desired)
    status = await asyncio.to_thread(
        node.until, KEY, lambda status: status.replicas[0].state is ReplicaState.FAILED
    )
    assert (status.replicas[0].pid, "make toolchains" in status.replicas[0].reason) == (None, True)

    (installed / "openvino").symlink_to(toolchain)
    assert node.target.preflight(desired, live=None) == ()
    await asyncio.to_thread(node.until, KEY, ready(1))
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(node.infer_url(), json={"inputs": [tensor]}) as response,
    ):
        assert (await response.json())["outputs"][0]["data"] == [1, 2, 3, 4]


def test_replicas_that_do_not_fit_into_memory_are_warned_of(node: Node) -> None:
    huge = node.wish(node.workload(1, 2, memory_bytes=2**49), generation=1)
    assert [(one.severity, one.code) for one in node.target.preflight(huge, live=None)] == [
        (Severity.WARNING, "memory_short")
    ]
    assert node.target.preflight(huge, live=huge) == ()


def test_a_replica_beyond_its_memory_limit_is_not_given_more(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 1, memory_bytes=256 * 1024**2), generation=1))
    pid = node.until(KEY, ready(1)).replicas[0].pid
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    data = next(line for line in limits if line.startswith("Max data size"))
    assert data.split()[3:5] == [str(256 * 1024**2)] * 2


def test_a_replica_sees_no_secret_and_only_its_owner_reads_its_configuration(resting_node: Node) -> None:
    secrets = dict.fromkeys(("DATABASE_URL", "REDIS_URL", "SLIPWAY_SECRET_KEY", "SLIPWAY_NODE_TOKEN"), "hush")
    resting_node.environment = secrets
    resting_node.start()
    resting_node.target.apply(
        resting_node.wish(
            resting_node.workload(1, 1, environment={"OMP_WAIT_POLICY": "PASSIVE"}), generation=1
        )
    )
    replica = resting_node.until(KEY, ready(1)).replicas[0]
    seen = Path(f"/proc/{replica.pid}/environ").read_bytes()
    assert b"hush" not in seen
    assert b"OMP_WAIT_POLICY=PASSIVE" in seen
    config = resting_node.home / "node" / "replicas" / KEY / replica.name / "config.json"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE((resting_node.home / "run" / "node.sock").stat().st_mode) & 0o077 == 0


@pytest.mark.faults
def test_a_replica_that_nobody_recorded_is_ended(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 1), generation=1))
    replica = node.until(KEY, ready(1)).replicas[0]
    node.kill()
    (node.home / "node" / "replicas" / KEY / replica.name / "record.json").unlink()
    node.start()
    node.until(KEY, ready(1))
    assert replica.pid not in node.processes()


def test_a_long_log_is_cut(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 1), generation=1))
    replica = node.until(KEY, ready(1)).replicas[0]
    log = node.home / "node" / "replicas" / KEY / replica.name / "log"
    with log.open("a") as file:
        file.write("".join(f"line {number} {'x' * 100}\n" for number in range(20_000)))
    deadline = time.monotonic() + 5
    while log.stat().st_size > 1024**2:
        assert time.monotonic() < deadline
        time.sleep(0.05)  # Cutting is a look once a second, and no event.
    lines = node.target.logs(KEY, replica=replica.name, tail=3)
    assert [line.split()[1] for line in lines] == ["19997", "19998", "19999"]


def test_over_tcp_the_token_is_asked_for(resting_node: Node) -> None:
    resting_node.url = f"http://127.0.0.1:{free_port()}"
    resting_node.token = "t" * 40
    resting_node.__post_init__()
    resting_node.start()
    for token in ("", "wrong"):
        with pytest.raises(SlipwayError) as caught:
            NodeClient(resting_node.url, token=token).get("deployments")
        assert caught.value.code == "not_authenticated"


UNUSABLE = [
    ("PUT", "/v1/deployments/d1", b"{", 400, "invalid_json"),
    ("PUT", "/v1/deployments/d1", b"[]", 400, "invalid_json"),
    ("PUT", "/v1/deployments/d1", b'{"key":"d1"}', 400, "invalid_document"),
    ("PUT", "/v1/deployments/d2", None, 400, "key_mismatch"),
    ("POST", "/v1/deployments/d1/scale", b'{"revision":1}', 400, "invalid_document"),
    ("GET", "/v1/events?after=x", b"", 400, "invalid_number"),
    ("GET", "/v1/unknown", b"", 404, "http"),
    ("PATCH", "/v1/deployments", b"", 405, "http"),
]


def test_what_the_node_cannot_use_gets_a_problem_document(node: Node) -> None:
    wish = json.dumps(node.wish(node.workload(), generation=1).to_json()).encode()
    for method, path, body, status, code in UNUSABLE:
        connection = NodeClient(node.url)._connection()
        connection.request(method, path, body=wish if body is None else body)
        response = connection.getresponse()
        problem = json.loads(response.read())
        assert response.headers["Content-Type"].startswith("application/problem+json"), path
        assert (response.status, problem["code"]) == (status, code), path
        assert problem["instance"] == path.partition("?")[0]
        connection.close()
    assert node.target.observe_all() == ()


def test_envoy_accepts_every_setting_without_complaint(node: Node) -> None:
    node.target.apply(node.wish(node.workload(1, 1), generation=1))
    node.until(KEY, ready(1))
    log = (node.home / "node" / "proxy" / "envoy" / "log").read_text().splitlines()
    unexpected = [line for line in log if "active downstream connections" not in line]
    assert unexpected == []


def test_a_full_disk_is_said_and_changes_nothing(resting_node: Node, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        (resting_node.home / "node").mkdir()
        (resting_node.home / "node" / "desired").symlink_to(small)
        resting_node.start()
        resting_node.target.apply(resting_node.wish(resting_node.workload(1, 1), generation=1))
        resting_node.until(KEY, ready(1))
        (small / "filler").write_bytes(b"x" * 200 * 1024)
        with pytest.raises(OSError, match="No space"):
            (small / "filler2").write_bytes(b"x" * 200 * 1024)
        with pytest.raises(SlipwayError) as caught:
            resting_node.target.scale(KEY, revision=1, replicas=2, generation=2)
        assert caught.value.code == "node_disk_full"
        assert resting_node.target.observe(KEY).generation == 1
        (small / "filler").unlink()
        (small / "filler2").unlink()
        resting_node.target.scale(KEY, revision=1, replicas=2, generation=2)
        resting_node.until(KEY, ready(2))
    finally:
        resting_node.terminate()
        subprocess.run(["umount", str(small)], check=True)
