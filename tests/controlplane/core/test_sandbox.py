"""What a sandboxed child can do, what it cannot, and that nothing of it stays."""

import json
import math
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from controlplane.core import checks
from controlplane.core.sandbox import Child, Limits, Outcome, SandboxFailure, call, isolation

TESTS = Path(__file__).parents[2]
LIMITS = Limits(memory_bytes=1024**3, cpu_s=30, wall_s=30, file_bytes=50_000_000)


def limits(**changes) -> Limits:
    return Limits(**LIMITS.to_json() | changes)


def start(
    entry: str,
    spec: dict | None = None,
    *,
    scratch: Path,
    readable=(),
    writable=(),
    held_until=math.inf,
    **changes,
) -> Child:
    return Child.start(
        entry=f"tests.controlplane.core.sandbox_entries:{entry}",
        spec=spec or {},
        scratch=scratch,
        limits=limits(**changes),
        readable=[TESTS, *readable],
        writable=writable,
        held_until=held_until,
    )


def run(entry: str, spec: dict | None = None, *, scratch: Path, readable=(), **changes) -> Outcome:
    with start(entry, spec, scratch=scratch, readable=readable, **changes) as child:
        return child.outcome()


def messages(child: Child) -> list[dict]:
    heard = []
    while not child.finished:
        message = child.poll(1)
        if message is not None:
            heard.append(message)
    return heard


def wait_for_step(child: Child, name: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        message = child.poll(1)
        if message and message["kind"] == "step" and message["name"] == name:
            return
    raise AssertionError(f"no step {name}")


def processes_with(mark: str) -> list[psutil.Process]:
    """Processes whose command line or working folder carries the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if mark in " ".join(process.cmdline()) or mark in process.cwd():
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if process.pid != os.getpid()]


def gone_within(mark: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while processes_with(mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def secrets(monkeypatch) -> Iterator[None]:
    for name in (
        "DATABASE_URL",
        "REDIS_URL",
        "SLIPWAY_SECRET_KEY",
        "SLIPWAY_NODE_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
    ):
        monkeypatch.setenv(name, "hunter2")
    return


def test_the_entry_gets_its_spec_and_its_result_comes_back(tmp_path):
    spec = {"text": "ü\u202e\n", "numbers": [1, 2.5, None], "large": "x" * 300_000}
    assert run("echo", spec, scratch=tmp_path).result == spec


def test_steps_progress_logs_and_prints_are_heard_in_order(tmp_path):
    with start("tell", scratch=tmp_path) as child:
        heard = messages(child)
        assert child.outcome().ok
    assert [message for message in heard if message["kind"] != "log"] == [
        {"kind": "step", "name": "first", "index": 1, "of": 2},
        {"kind": "progress", "done": 1, "total": 2},
        {"kind": "result", "data": {"done": True}},
    ]
    logs = [(message["level"], message["message"]) for message in heard if message["kind"] == "log"]
    assert sorted(logs) == [("info", "from stderr"), ("info", "from stdout"), ("warning", "careful")]


def test_call_returns_the_result_or_raises_why(tmp_path):
    def answer(entry: str) -> dict:
        return call(
            entry=f"tests.controlplane.core.sandbox_entries:{entry}",
            spec={"a": 1},
            scratch=tmp_path,
            limits=LIMITS,
            readable=[TESTS],
        )

    assert answer("echo") == {"a": 1}
    with pytest.raises(SandboxFailure) as failed:
        answer("fail")
    assert (failed.value.reason, failed.value.detail) == ("error", "ValueError: seven is not a shape")
    assert failed.value.outcome.log_tail[-1] == "ValueError: seven is not a shape"


def test_a_refusal_comes_back_as_its_code_and_sentences_without_control_characters(tmp_path):
    outcome = run("refuse", scratch=tmp_path)
    assert outcome.reason == "refused"
    assert outcome.refusal is not None
    assert outcome.refusal.code == "not_onnx"
    assert outcome.detail == "This file is not an ONNX model. It begins with \\x1b[31mELF."


def test_f06_a_child_that_hangs_is_stopped_at_its_wall_limit(tmp_path):
    began = time.monotonic()
    outcome = run("sleep", scratch=tmp_path, wall_s=1)
    assert (outcome.result, outcome.reason) == (None, "timeout")
    assert "1 s" in outcome.detail
    assert time.monotonic() - began < 10
    assert gone_within(str(tmp_path), 3)


def test_a_child_that_is_asked_to_stop_ends_in_order_and_says_so(tmp_path):
    with start("wait_to_be_asked", scratch=tmp_path) as child:
        wait_for_step(child, "waiting")
        child.ask_to_stop()
        said = [message["message"] for message in messages(child) if message["kind"] == "log"]
        outcome = child.outcome()
        child.ask_to_stop()  # it may have ended in the meantime
    assert outcome.result == {"asked": True}
    assert said == ["as you wish"]


def test_a_child_that_burns_the_processor_is_stopped_at_its_limit(tmp_path):
    outcome = run("spin", scratch=tmp_path, cpu_s=1)
    assert outcome.reason == "timeout"
    assert "processor time" in outcome.detail


def test_f04_a_child_out_of_memory_says_its_peak_and_its_limit(tmp_path):
    outcome = run("hoard", scratch=tmp_path, memory_bytes=300 * 1024**2)
    assert outcome.reason == "out_of_memory"
    assert outcome.detail.endswith("limit 300 MB without.")
    assert 250 * 1024**2 < outcome.peak_bytes < 350 * 1024**2


def test_address_space_that_is_only_reserved_is_not_memory(tmp_path):
    """A CUDA context begins with a reservation of twice the GPU's memory, PyTorch with 2.4 GiB of libraries."""
    reserved = {"bytes": 3 * 1024**3, "flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, "prot": mmap.PROT_READ}
    assert run("map_memory", reserved, scratch=tmp_path, memory_bytes=1024**3).ok
    own = reserved | {"prot": mmap.PROT_READ | mmap.PROT_WRITE}
    assert run("map_memory", own, scratch=tmp_path, memory_bytes=1024**3).reason == "out_of_memory"


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="NVIDIA's driver needs the address space")
def test_memory_shared_between_processes_has_a_limit_too(tmp_path):
    shared = {"bytes": 6 * 1024**3, "flags": mmap.MAP_SHARED, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
    assert run("map_memory", shared, scratch=tmp_path, memory_bytes=1024**3).reason == "out_of_memory"


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGKILL"])
def test_f05_a_child_that_crashes_names_the_signal_and_keeps_its_last_words(tmp_path, name):
    outcome = run("die", {"signal": name}, scratch=tmp_path)
    assert (outcome.reason, outcome.detail) == ("crashed", f"It crashed with {name}.")
    assert "about to die" in outcome.log_tail


@pytest.mark.parametrize("status", [0, 7])
def test_a_child_that_leaves_without_a_result_is_an_error(tmp_path, status):
    outcome = run("leave", {"status": status}, scratch=tmp_path)
    assert (outcome.result, outcome.reason) == (None, "error")


def test_a_file_above_the_limit_cannot_be_written(tmp_path):
    assert run("write_file", {"megabytes": 4}, scratch=tmp_path, file_bytes=5_000_000).ok
    outcome = run("write_file", {"megabytes": 6}, scratch=tmp_path, file_bytes=5_000_000)
    assert outcome.reason == "error"
    assert "5,000,000 bytes" in outcome.detail


@pytest.mark.usefixtures("secrets")
def test_a_child_sees_no_secret_and_no_open_file_of_its_parent(tmp_path):
    parents = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    try:
        seen = run("look_around", scratch=tmp_path).result
    finally:
        for descriptor in parents:
            os.close(descriptor)
    assert seen is not None
    assert "hunter2" not in json.dumps(seen)
    assert seen["environment"]["HOME"] == seen["environment"]["TMPDIR"] == seen["cwd"] == str(tmp_path)
    assert seen["descriptors"] < 10
    assert all(line.endswith("0" * 16) for line in seen["capabilities"])


def test_a_child_reads_only_what_it_is_given_and_writes_only_its_folders(tmp_path):
    scratch, kept = tmp_path / "scratch", tmp_path / "kept"
    given_, private = tmp_path / "given", tmp_path / "private"
    scratch.mkdir()
    kept.mkdir()
    for file in (given_, private):
        file.write_text("text")
    new = [str(scratch / "new"), str(kept / "new")]
    paths = [str(given_), str(private), "/etc/shadow", "/root/.bashrc", *new]
    spec = {"read": paths[:4], "write": paths}
    with start("try_files", spec, scratch=scratch, readable=[given_], writable=[kept]) as child:
        outcome = child.outcome()
        if not child.isolation["files"]:
            pytest.skip("this kernel has no Landlock")
    assert outcome.result == {"read": [str(given_)], "write": new}


def test_f22_a_full_disk_is_a_reason_of_its_own_that_names_no_folder(tmp_path):
    outcome = run("fill", scratch=tmp_path)
    assert (outcome.reason, outcome.detail) == ("storage_full", "The disk has no room left.")


def test_the_deployment_check_says_what_this_machine_lacks(monkeypatch):
    with_all = isolation.probe()
    assert [found.id for found in checks.uploads_are_confined()] == (["slipway.W004"] if with_all else [])
    monkeypatch.setattr(isolation, "probe", lambda: ("files",))
    (found,) = checks.uploads_are_confined()
    assert found.id == "slipway.W004"
    assert "Landlock" in str(found.hint)


def test_a_child_has_no_network_unless_its_limits_say_so(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        spec = {"port": server.getsockname()[1]}
        closed = run("connect", spec, scratch=tmp_path).result
        opened = run("connect", spec, scratch=tmp_path, network=True).result
    assert closed is not None
    assert not closed["connected"]
    assert opened == {"connected": True}


def test_killing_a_child_ends_its_grandchildren_in_sessions_of_their_own(tmp_path):
    with start("breed", {"mark": str(tmp_path), "stay": True}, scratch=tmp_path) as child:
        wait_for_step(child, "bred")
        assert len(processes_with(str(tmp_path))) >= 2
        child.kill()
        child.kill()
        assert not processes_with(str(tmp_path))
        assert child.outcome().reason == "error"


def test_a_child_that_ends_well_leaves_no_grandchild_behind(tmp_path):
    assert run("breed", {"mark": str(tmp_path)}, scratch=tmp_path).ok
    assert not processes_with(str(tmp_path))


def test_leaving_the_block_by_an_error_leaves_no_process_behind(tmp_path):
    with pytest.raises(ZeroDivisionError), start("sleep", scratch=tmp_path) as child:  # noqa: PT012
        wait_for_step(child, "asleep")
        raise ZeroDivisionError
    assert not processes_with(str(tmp_path))


def test_a_child_that_nobody_holds_any_longer_ends_by_itself(tmp_path):
    """Its parent is stuck elsewhere and looks at nothing."""
    held_until = time.monotonic() + 0.5
    with start("sleep", scratch=tmp_path, held_until=held_until) as child:
        assert gone_within(str(tmp_path), 10)
        assert time.monotonic() >= held_until
        assert child.outcome().reason == "abandoned"


def test_a_child_lives_for_as_long_as_it_is_held(tmp_path):
    first_until = time.monotonic() + 1
    with start("sleep", scratch=tmp_path, held_until=first_until) as child:
        while time.monotonic() < first_until + 0.5:
            child.hold_until(time.monotonic() + 20)
            child.poll(0.05)
        assert not child.finished


def test_a_frozen_parent_cannot_lengthen_the_wall_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("controlplane.core.sandbox.parent.KEEPER_GRACE_S", 0.2)
    with start("sleep", scratch=tmp_path, wall_s=0.5, held_until=time.monotonic() + 60) as child:
        assert gone_within(str(tmp_path), 10)
        assert child.outcome().reason == "timeout"


PARENT = """
import sys
from pathlib import Path
from controlplane.core.sandbox import Child, Limits
scratch, tests = Path(sys.argv[1]), Path(sys.argv[2])
limits = Limits(memory_bytes=1024**3, cpu_s=30, wall_s=60, file_bytes=10**6)
spec = {"mark": str(scratch), "stay": True}
entry = "tests.controlplane.core.sandbox_entries:breed"
with Child.start(entry=entry, spec=spec, scratch=scratch, limits=limits, readable=[tests]) as child:
    while (message := child.poll(10)) is None or message["kind"] != "step":
        pass
    print(sorted(child.isolation["namespaces"]), flush=True)
    child.outcome()
"""


def parent_process(scratch: Path, *, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", PARENT, str(scratch), str(TESTS)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=TESTS.parent,
    )


def kill_and_expect_nothing_left(parent: subprocess.Popen[str], scratch: Path) -> None:
    try:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert gone_within(str(scratch), 3)
    finally:
        for process in processes_with(str(scratch)):
            process.kill()
        assert parent.stdout is not None
        parent.stdout.close()


def test_f03_a_parent_killed_with_9_takes_the_child_and_its_grandchildren_along_within_3_s(tmp_path):
    parent = parent_process(tmp_path)
    assert parent.stdout is not None
    assert parent.stdout.readline().startswith("[")
    kill_and_expect_nothing_left(parent, tmp_path)


# Where containers forbid namespaces: none can be made, and no capability is there to make them.
WITHOUT_NAMESPACES = (
    *("unshare", "-Ur", "sh", "-c"),
    'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "$@"',
    "sh",
)


def namespaces_can_be_taken_away() -> bool:
    probe = subprocess.run([*WITHOUT_NAMESPACES, "true"], capture_output=True, check=False)
    return probe.returncode == 0


@pytest.mark.skipif(not namespaces_can_be_taken_away(), reason="the poorer machine cannot be imitated here")
def test_f03_holds_where_no_namespace_may_be_made(tmp_path):
    parent = parent_process(tmp_path, prefix=WITHOUT_NAMESPACES)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "[]\n"
    kill_and_expect_nothing_left(parent, tmp_path)


def test_a_chatty_child_is_heard_up_to_a_limit_and_still_succeeds(tmp_path):
    with start("chat", {"lines": 20_000, "width": 1000}, scratch=tmp_path) as child:
        heard = messages(child)
        assert child.outcome().ok
    logs = [message["message"] for message in heard if message["kind"] == "log"]
    assert logs[-1] == "log truncated after 10 MB"
    assert sum(map(len, logs)) < 11 * 1024**2


def test_a_line_without_end_is_cut(tmp_path):
    with start("chat", {"lines": 1, "width": 3_000_000}, scratch=tmp_path) as child:
        logs = [message["message"] for message in messages(child) if message["kind"] == "log"]
    assert max(map(len, logs)) <= 2001


def test_control_characters_of_a_child_reach_no_terminal(tmp_path):
    with start("say", {"text": "\x1b[2Jred\x00\u202eevil\x9b\n"}, scratch=tmp_path) as child:
        logs = [message["message"] for message in messages(child) if message["kind"] == "log"]
    assert logs == ["\\x1b[2Jred\\x00\\u202eevil\\x9b"]


@pytest.mark.parametrize(
    "line",
    ["not json", "[1]", '{"kind": "grant"}', '{"kind": "result", "data": 1}', "[" * 100_000, '{"kind": []}'],
)
def test_a_child_that_does_not_keep_to_the_protocol_is_ended(tmp_path, line):
    outcome = run("babble", {"line": line}, scratch=tmp_path)
    assert outcome.reason == "error"
    assert outcome.detail.startswith("It did not keep to the protocol")
    assert gone_within(str(tmp_path), 3)


def test_an_entry_that_does_not_exist_is_an_error(tmp_path):
    with Child.start(entry="nowhere.at_all:run", spec={}, scratch=tmp_path, limits=LIMITS) as child:
        assert child.outcome().reason == "error"


def test_a_child_says_hello_before_anything_heavy_could_be_imported(tmp_path):
    """The median of five starts is bounded, because requests wait for a child."""

    def start_s() -> float:
        began = time.monotonic()
        with start("sleep", scratch=tmp_path) as child:
            while not child.isolation:
                child.poll(0.001)
            return time.monotonic() - began

    assert sorted(start_s() for _ in range(5))[2] < 0.5
