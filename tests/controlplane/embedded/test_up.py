"""`up` starts everything behind one address, restarts what dies, and leaves nothing behind."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import redis

from controlplane.embedded import edge, procfs
from controlplane.embedded.home import Home
from controlplane.embedded.runtime import running
from tests.controlplane.embedded.conftest import (
    REPOSITORY,
    STANDIN,
    Program,
    home_folder,
    processes_of,
    until,
)
from tests.optimizer.test_gpus import L4, LISTING, MIG, TABLE

pytestmark = pytest.mark.processes

type Start = Callable[..., Program]
STOP_LIMIT_S = 10.0


@pytest.fixture(scope="module")
def shared() -> Iterator[Program]:
    """One `up` for the tests that leave it running."""
    with home_folder() as folder:
        program = Program(folder)
        try:
            program.ready()
            yield program
        finally:
            program.stop()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def replicas(program: Program) -> list[int]:
    """The replicas that the stand-in node said it started, oldest first."""
    return until(lambda: [int(line.split()[-1]) for line in program.lines if line.startswith("node")])


def gone(pid: int) -> bool:
    return procfs.look(pid) is None


def test_one_address_leads_to_web_and_live(shared: Program) -> None:
    up = shared.state()
    assert get(f"{up.url}models/").startswith("web /models/")
    assert get(f"{up.url}live/ticks").startswith("live /live/ticks")


def test_children_read_the_servers_only_where_their_row_says_so(shared: Program) -> None:
    assert "nosy     | []" in shared.lines
    assert "prepare  | migrated --new-password" in shared.lines


def test_the_state_file_names_every_process_and_only_its_owner_reads_it(shared: Program) -> None:
    up = shared.state()
    assert set(up.processes) == {"postgres", "valkey", "node", "worker", "nosy", "live", "web", "edge"}
    assert up.ready
    for name in ("secrets.json", "run/up.json", "run/edge.json", "valkey/valkey.conf"):
        assert stat.S_IMODE((shared.home / name).stat().st_mode) == 0o600


def test_no_process_list_shows_a_secret(shared: Program) -> None:
    secrets = json.loads((shared.home / "secrets.json").read_text()).values()
    shown = " ".join(processes_of(shared.home).values())
    assert [secret for secret in secrets if secret in shown] == []


def test_the_login_is_told_on_the_terminal_and_kept_in_no_log(shared: Program) -> None:
    password = json.loads((shared.home / "secrets.json").read_text())["admin_password"]
    assert f"    password  {password}" in shared.lines
    logs = list((shared.home / "log").iterdir())
    assert [log.name for log in logs if password in log.read_text()] == []


@pytest.mark.parametrize("name", ["web", "live", "worker", "edge"])
def test_a_killed_process_is_started_again(shared: Program, name: str) -> None:
    before = shared.state()
    os.kill(before.processes[name], signal.SIGKILL)
    shared.expect(rf"^up +\| {name} died \(signal SIGKILL\), starting again in")
    after = until(lambda: _moved(shared, name, before.processes[name]))
    assert {key: pid for key, pid in after.processes.items() if key != name} == {
        key: pid for key, pid in before.processes.items() if key != name
    }
    assert until(lambda: _answers(after.url)).startswith("web /")
    # A killed live has a process again before it listens; the tests after this one ask it.
    assert until(lambda: _answers(f"{after.url}live/ticks")).startswith("live /")


def _moved(program: Program, name: str, pid: int):
    up = running(program.home)
    return up if up is not None and up.processes.get(name, pid) != pid else None


def _answers(url: str) -> str | None:
    try:
        return get(url)
    except OSError:
        return None


def test_what_a_killed_process_had_started_in_its_group_dies_with_it(shared: Program) -> None:
    worker = shared.state().processes["worker"]
    (grandchild,) = (seen.pid for seen in procfs.everyone() if seen.parent == worker)
    os.kill(worker, signal.SIGKILL)
    until(lambda: _moved(shared, "worker", worker))
    assert gone(grandchild)


def test_a_killed_node_leaves_its_replicas_running(shared: Program) -> None:
    node = shared.state().processes["node"]
    replica = replicas(shared)[-1]
    os.kill(node, signal.SIGKILL)
    until(lambda: _moved(shared, "node", node))
    assert not gone(replica)


def test_killed_servers_come_back_with_their_data(shared: Program) -> None:
    up = shared.state()
    with psycopg.connect(up.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    with redis.Redis.from_url(up.redis_url) as client:
        client.set("kept", "7")
        assert client.execute_command("WAITAOF", 1, 0, 5000)[0] == 1
    for name in ("postgres", "valkey"):
        os.kill(up.processes[name], signal.SIGKILL)
    assert until(lambda: _row(up.database_url)) == (7,)
    assert until(lambda: _key(up.redis_url)) == b"7"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_leaves_no_process_and_exit_code_0(
    start: Start, home: Path, number: signal.Signals
) -> None:
    program = start()
    up = program.ready()
    began = time.monotonic()
    assert program.stop(number) == 0
    assert time.monotonic() - began < STOP_LIMIT_S
    assert processes_of(home) == {}
    assert all(gone(pid) for pid in up.processes.values())
    assert running(home) is None


def test_what_ignores_its_stop_signal_is_killed_within_the_limit(start: Start, home: Path) -> None:
    program = start(STANDIN_ROWS="stubborn")
    program.ready()
    began = time.monotonic()
    assert program.stop() == 0
    assert time.monotonic() - began < STOP_LIMIT_S
    assert processes_of(home) == {}
    assert "stubborn did not stop in time and is killed" in program.output()


def test_a_second_ctrl_c_kills_at_once(start: Start, home: Path) -> None:
    program = start(STANDIN_ROWS="stubborn")
    program.ready()
    program.popen.send_signal(signal.SIGINT)
    program.expect("Ctrl-C kills at once")
    program.popen.send_signal(signal.SIGINT)
    assert program.wait() == 0
    assert "did not stop in time" not in program.output()
    assert processes_of(home) == {}


def test_a_repeated_sigterm_still_stops_in_order(start: Start, home: Path) -> None:
    """make passes on what its whole group got already."""
    program = start()
    program.ready()
    program.popen.send_signal(signal.SIGTERM)
    program.expect("Ctrl-C kills at once")
    program.popen.send_signal(signal.SIGTERM)
    assert program.wait() == 0
    assert "database system is shut down" in program.output()


def test_a_stop_during_the_start_leaves_no_process(start: Start, home: Path) -> None:
    program = start()
    program.expect("^postgres")
    assert program.stop() == 0
    assert processes_of(home) == {}


def test_a_request_in_flight_is_answered_before_the_stop(start: Start) -> None:
    program = start()
    up = program.ready()
    answers: list[str] = []
    client = threading.Thread(target=lambda: answers.append(get(f"{up.url}slow")))
    client.start()
    until(lambda: edge.under_way(Home(root=program.home)) == 1)
    assert program.stop() == 0
    client.join()
    assert answers[0].startswith("web /slow")


def test_restarts_of_what_cannot_start_back_off(start: Start) -> None:
    program = start(STANDIN_ROWS="crashing")
    for delay in ("0.2", "0.4", "0.8"):
        program.expect(rf"crashing died \(exit 3\), starting again in {delay} s")


def _row(url: str):
    try:
        with psycopg.connect(url) as connection:
            return connection.execute("SELECT value FROM kept").fetchone()
    except psycopg.OperationalError:
        return None


def _key(url: str):
    try:
        with redis.Redis.from_url(url) as client:
            return client.get("kept")
    except redis.RedisError:
        return None


def test_a_killed_up_leaves_replicas_only_and_the_next_one_continues(start: Start, home: Path) -> None:
    first = start()
    before = first.ready()
    with psycopg.connect(before.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    replica = replicas(first)[0]
    first.popen.kill()
    first.popen.wait()
    until(lambda: all(gone(pid) for pid in before.processes.values()))
    assert not gone(replica)
    assert running(home) is None
    second = start()
    after = second.ready()
    assert (after.address, after.database_url, after.redis_url) == (
        before.address,
        before.database_url,
        before.redis_url,
    )
    assert _row(after.database_url) == (7,)
    assert "prepare  | migrated" in second.lines
    assert not gone(replica)
    second.stop()
    assert gone(replica)


def test_up_continues_after_kill_9_of_everything(start: Start, home: Path) -> None:
    first = start()
    before = first.ready()
    with psycopg.connect(before.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    for pid in (first.popen.pid, *processes_of(home)):
        with suppress(ProcessLookupError):  # its parent's end was its own
            os.kill(pid, signal.SIGKILL)
    first.wait()
    after = start().ready()
    assert _row(after.database_url) == (7,)
    assert _key(after.redis_url) is None


def test_leftovers_that_outlived_a_killed_up_are_stopped_first(start: Start, home: Path) -> None:
    """A frozen process does not hear its parent die."""
    first = start()
    before = first.ready()
    frozen = (before.processes["postgres"], before.processes["web"])
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    first.popen.kill()
    first.popen.wait()
    second = start()
    second.ready()
    assert all(gone(pid) for pid in frozen)


@pytest.mark.parametrize(("variable", "server"), [("DATABASE_URL", "postgres"), ("REDIS_URL", "valkey")])
def test_a_server_of_the_operator_replaces_the_embedded_one(
    start: Start, home: Path, variable: str, server: str
) -> None:
    program = start(**{variable: os.environ[variable]}, STANDIN_MIGRATE="own")
    up = program.ready()
    assert "    password  as you set it" in program.lines
    assert {"postgres", "valkey"} & set(up.processes) == {"postgres", "valkey"} - {server}
    theirs = {"DATABASE_URL": up.database_url, "REDIS_URL": up.redis_url}
    assert {name for name, url in theirs.items() if url == os.environ[name]} == {variable}
    assert (home / "postgres").exists() is (server != "postgres")


def test_an_edge_on_every_network_is_asked_on_this_machine_and_says_how_others_ask(start: Start) -> None:
    program = start(SLIPWAY_ADDRESS="0.0.0.0:0", SLIPWAY_HOSTS="models.example")
    program.expect(r"Slipway is at http://127\.0\.0\.1:")
    program.expect(r"Other machines must ask for a name in SLIPWAY_HOSTS: models\.example")
    up = program.state()
    port = edge.split(up.address)[1]
    assert up.url == f"http://127.0.0.1:{port}/"
    assert get(f"http://127.0.0.2:{port}/").startswith("web /")


def test_a_terminal_that_is_not_read_stops_nothing(home: Path) -> None:
    """The pipe of our output is full, and processes are still restarted."""
    environment = {
        name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}
    }
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, b"x" * 65536)
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    with subprocess.Popen(
        [sys.executable, str(STANDIN)],
        env=environment
        | {"SLIPWAY_HOME": str(home), "SLIPWAY_ADDRESS": "127.0.0.1:0", "SLIPWAY_DATA_PORT": "0"}
        | {"PYTHONPATH": str(REPOSITORY)},
        stdout=writer,
        stderr=subprocess.DEVNULL,
    ) as program:
        try:
            up = until(lambda: (found := running(home)) and found.ready and found)
            os.kill(up.processes["web"], signal.SIGKILL)
            until(lambda: running(home).processes.get("web", up.processes["web"]) != up.processes["web"])
            program.terminate()
            assert program.wait(30) == 0
        finally:
            os.close(reader)
            os.close(writer)
            program.kill()
    assert "web died" in (home / "log" / "up.log").read_text()


def test_every_gpu_that_the_driver_tells_of_gets_a_worker(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's command is a stand-in: no GPU was there."""
    (tmp_path / "table").write_text(TABLE)
    (tmp_path / "listing").write_text(LISTING)
    command = tmp_path / "nvidia-smi"
    command.write_text(
        f'#!/bin/sh\n[ "$1" = -L ] && exec cat "{tmp_path}/listing"\nexec cat "{tmp_path}/table"\n'
    )
    command.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program = start(STANDIN_ROWS="workers", PATH=f"{tmp_path}:{os.environ['PATH']}")
    up = program.ready()
    sees = [f"worker-gpu-{number} +\\| optimize.gpu sees '{gpu}'" for number, gpu in enumerate([L4, *MIG], 1)]
    for line in (
        "worker-optimize +\\| optimize.cpu sees ''",
        *sees,
        "worker-rollouts +\\| rollouts sees ''",
    ):
        until(lambda line=line: any(re.match(line, said) for said in program.lines))
    assert {"worker-gpu-1", "worker-gpu-2", "worker-gpu-3"} <= set(up.processes)


def _readable_by_all(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.skipif(
    not _readable_by_all(REPOSITORY) or not _readable_by_all(Path(sys.executable).resolve()),
    reason="this checkout is closed to other users",
)
@pytest.mark.parametrize("uid", [1000, 65534])
def test_an_ordinary_user_with_or_without_an_account_runs_it(start: Start, home: Path, uid: int) -> None:
    os.chown(home, uid, uid)
    program = start(uid=uid, HOME=str(home))
    up = program.ready()
    assert get(up.url).startswith("web /")
    assert {Path(f"/proc/{pid}").stat().st_uid for pid in up.processes.values()} == {uid}
    assert program.stop() == 0
    assert processes_of(home) == {}


def test_a_home_whose_path_is_too_long_for_a_socket_works(home: Path) -> None:
    deep = home / ("long" * 20) / ("name" * 10)
    deep.mkdir(parents=True)
    program = Program(deep)
    try:
        up = program.ready()
        assert get(up.url).startswith("web /")
        sockets = Path(up.node_url.removeprefix("unix:")).parent
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    finally:
        assert program.stop() == 0
    assert not sockets.exists()
