"""What `nvidia-smi` says becomes what a worker offers. The texts are written in the command's documented format, with
values of real cards; no GPU was asked for them."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from optimizer import queues, tasks
from optimizer.queues import Needs
from optimizer.worker import announce, gpus, hardware
from optimizer.worker.gpus import Gpu, parsed, parsed_load, visible

L4 = "GPU-b9b1a4ee-35cf-5e75-7e6a-4a3e4a4c2f01"
H100 = "GPU-3d1f4f7e-6a3b-8f0e-90c1-64b7b4c5a102"
MIG = ("MIG-8f3b6a11-1c5e-5f0b-9f2a-0d6a3f1f7a01", "MIG-52a9b0c7-7c0d-5a46-8a57-9f1b2c3d4e02")
TABLE = f"""{L4}, NVIDIA L4, 8.9, 23034, 550.54.15, [N/A]
{H100}, NVIDIA H100 80GB HBM3, 9.0, 81559, 550.54.15, Enabled
"""
LISTING = f"""GPU 0: NVIDIA L4 (UUID: {L4})
GPU 1: NVIDIA H100 80GB HBM3 (UUID: {H100})
  MIG 3g.40gb     Device  0: (UUID: {MIG[0]})
  MIG 1g.10gb+me  Device  1: (UUID: {MIG[1]})
"""
DEAD = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running."
)


def test_models_capabilities_memory_and_instances_are_read() -> None:
    (l4, h100), driver = parsed(TABLE, listing=LISTING)
    assert driver == "550.54.15"
    assert l4 == Gpu(uuid=L4, name="NVIDIA L4", capability="8.9", memory_bytes=23034 * 1024**2, mig=None)
    assert (h100.name, h100.capability) == ("NVIDIA H100 80GB HBM3", "9.0")
    assert h100.mig == dict(zip(MIG, ("3g.40gb", "1g.10gb+me"), strict=True))
    assert h100.to_json()["mig"] == ["3g.40gb", "1g.10gb+me"]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "No devices were found\n",
        DEAD,
        'Field "compute_cap" is not a valid field to query.',
        "GPU-1, half a row",
        ", ".join(["?"] * 6),
    ],
)
def test_what_is_no_row_is_no_gpu(said: str) -> None:
    assert parsed(said) == ((), "")


def test_what_a_gpu_does_not_know_is_unknown() -> None:
    ((gpu,), _) = parsed(f"{L4}, Tesla K80, [N/A], [Unknown Error], 470.1, [Not Supported]")
    assert (gpu.capability, gpu.memory_bytes, gpu.mig) == (None, None, None)
    assert parsed_load(f"{L4}, 512, [N/A]\n{H100}, ERR!, 7\n") == [
        {"uuid": L4, "memory_used_bytes": 512 * 1024**2, "utilization_percent": None},
        {"uuid": H100, "memory_used_bytes": None, "utilization_percent": 7},
    ]


words = st.text(st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters=","), max_size=20)


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_makes_it_fail(table: str, listing: str) -> None:
    parsed(table, listing=listing)
    parsed_load(table)
    visible(parsed(TABLE, listing=LISTING)[0], table)


@given(
    st.lists(
        st.tuples(words, st.integers(1, 99), st.integers(0, 9), st.integers(0, 10**7)), min_size=1, max_size=9
    )
)
def test_every_row_is_read_as_it_was_written(rows: list[tuple[str, int, int, int]]) -> None:
    text = "".join(
        f"GPU-{number}, {name}, {major}.{minor}, {mib}, 1.2, Disabled\n"
        for number, (name, major, minor, mib) in enumerate(rows)
    )
    found, _ = parsed(text)
    assert [(gpu.name, gpu.capability, gpu.memory_bytes) for gpu in found] == [
        (name.strip(), f"{major}.{minor}", mib * 1024**2) for name, major, minor, mib in rows
    ]


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        (None, [L4, H100]),
        ("", []),
        ("-1", []),
        ("1", [H100]),
        ("1,0", [H100, L4]),
        ("1,1", [H100]),
        ("0,7,1", [L4]),
        ("GPU-b9", [L4]),
        ("GPU-", []),
        (MIG[1], [H100]),
        (f"MIG-{H100}/1/0", [H100]),
        ("MIG-unknown", []),
        ("٣", []),
    ],
)
def test_only_what_cuda_would_see_is_offered(wanted: str | None, seen: list[str]) -> None:
    assert [gpu.uuid for gpu in visible(parsed(TABLE, listing=LISTING)[0], wanted)] == seen


def test_each_gpu_and_each_instance_of_a_partitioned_one_can_have_a_worker() -> None:
    found, _ = parsed(TABLE, listing=LISTING)
    assert gpus.units(found) == [L4, *MIG]
    for unit in gpus.units(found):
        (seen,) = visible(found, unit)
        assert gpus.units([seen]) == [unit]
    assert visible(found, MIG[1])[0].kind == "NVIDIA H100 80GB HBM3 9.0 1g.10gb+me"


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A command of that name that does what the script says, before all others."""

    def install(script: str, name: str = "nvidia-smi") -> None:
        command = tmp_path / name
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus.found.cache_clear()
    yield install
    gpus.found.cache_clear()


@pytest.mark.parametrize(
    ("gpu", "there", "asked"), [(True, False, "-u -c=0\n"), (True, True, ""), (False, False, "")]
)
def test_the_device_that_cuda_needs_is_made_before_a_confined_process_asks_for_it(
    says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool, there: bool, asked: str
) -> None:
    log, device = tmp_path / "asked", tmp_path / "nvidia-uvm"
    log.touch()
    monkeypatch.setattr(gpus, "UNIFIED_MEMORY", device)
    (tmp_path / "table").write_text(TABLE if gpu else "")
    says(f"exec cat {tmp_path}/table")
    says(f'echo "$@" >> {log}', "nvidia-modprobe")
    if there:
        device.touch()
    gpus.make_devices()
    assert log.read_text() == asked


def test_a_worker_serves_the_first_gpu_that_it_sees(says, tmp_path: Path) -> None:
    (tmp_path / "table").write_text(TABLE)
    (tmp_path / "listing").write_text(LISTING)
    says(f'[ "$1" = -L ] && exec cat {tmp_path}/listing; exec cat {tmp_path}/table')
    assert hardware.inventory()["driver"] == "550.54.15"
    assert [gpu["capability"] for gpu in hardware.inventory()["gpus"]] == ["8.9", "9.0"]
    assert hardware.served_gpu() == "8.9"


def test_it_takes_one_job_at_a_time_whatever_it_is_told_and_its_children_see_that_gpu_only(
    says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "table").write_text(TABLE)
    says(f"exec cat {tmp_path}/table")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    amqp = SimpleNamespace(queues=SimpleNamespace(consume_from={"optimize.cpu": None}))
    worker = SimpleNamespace(app=SimpleNamespace(amqp=amqp), concurrency=4)
    tasks.serve_one_job_on_a_gpu(sender=worker)
    assert worker.concurrency == 1
    assert os.environ["CUDA_VISIBLE_DEVICES"] == H100
    other = SimpleNamespace(app=worker.app, concurrency=4)
    for queue, slots in (("optimize.gpu", 1), ("rollouts", 4)):
        amqp.queues.consume_from = {queue: None}
        other = SimpleNamespace(app=worker.app, concurrency=4)
        tasks.serve_one_job_on_a_gpu(sender=other)
        assert other.concurrency == slots


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("sees", "asked", "served"),
    [
        (None, "optimize.gpu", {"optimize.gpu", "optimize.gpu.sm_89"}),
        (MIG[0], "optimize.gpu", {"optimize.gpu", "optimize.gpu.sm_90"}),
        ("", "optimize.gpu", set()),
        ("", "optimize.cpu", {"optimize.cpu"}),
        (None, "optimize.cpu", {"optimize.cpu", "optimize.gpu", "optimize.gpu.sm_89"}),
        (None, "rollouts", {"rollouts"}),
    ],
)
def test_a_worker_takes_the_jobs_of_the_gpu_that_it_was_started_for(
    says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sees: str | None, asked: str, served: set[str]
) -> None:
    (tmp_path / "table").write_text(TABLE)
    (tmp_path / "listing").write_text(LISTING)
    says(f'[ "$1" = -L ] && exec cat {tmp_path}/listing; exec cat {tmp_path}/table')
    monkeypatch.setattr(hardware, "toolchains", dict)
    monkeypatch.setattr(tasks.connections, "close_all", lambda: None)
    monkeypatch.setattr(announce, "own_queues", [])
    if sees is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", sees)
    amqp = Celery("worker", set_as_current=False).amqp
    amqp.queues.select(asked)
    tasks.listen_for_all_it_serves(sender="w1@host", instance=SimpleNamespace(app=SimpleNamespace(amqp=amqp)))
    assert set(amqp.queues.consume_from) == served


def test_a_driver_that_fails_is_told_apart_from_a_machine_without_a_gpu(
    says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(f'echo "{DEAD}"; exit 9')
    assert gpus.found() == gpus.Found(problem=DEAD)
    assert hardware.served_gpu() is None
    gpus.found.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert gpus.found() == gpus.Found()


def test_a_driver_that_hangs_is_waited_for_only_so_long(says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "ANSWERS_WITHIN_S", 0.2)
    says("exec sleep 20")
    began = time.monotonic()
    assert "did not answer" in gpus.found().problem
    assert time.monotonic() - began < 5


def test_a_driver_that_hangs_later_is_not_asked_anew_each_time(
    says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "table").write_text(TABLE)
    log = tmp_path / "log"
    says(f"echo asked >> {log}; exec cat {tmp_path}/table")
    assert gpus.found().gpus
    hanging = SimpleNamespace(poll=lambda: None)
    monkeypatch.setattr(gpus, "_hanging", [hanging])
    before = log.read_text()
    assert gpus.load() == []
    assert log.read_text() == before
    hanging.poll = lambda: -9
    gpus.load()
    assert log.read_text() == f"{before}asked\n"


KEYS = ("openvino", "tensorrt", "torch")
capabilities = st.sampled_from(["7.5", "8.9", "9.0", "12.0", "12.1"])
needs = st.builds(
    Needs,
    gpu=st.sampled_from(["", "any"]) | capabilities,
    toolchains=st.frozensets(st.sampled_from(KEYS)),
)


@given(needs, st.none() | st.just("") | capabilities, st.sets(st.sampled_from(KEYS)), st.booleans())
def test_a_worker_listens_where_a_job_waits_exactly_if_it_has_what_the_job_needs(
    wanted: Needs, gpu: str | None, toolchains: set[str], cpu: bool
) -> None:
    fits = wanted.toolchains <= toolchains and (
        cpu if wanted.gpu == "" else gpu is not None if wanted.gpu == "any" else wanted.gpu == gpu
    )
    assert (wanted.queue in queues.served(toolchains=toolchains, gpu=gpu, cpu=cpu)) == fits


@given(needs)
def test_a_queue_says_what_it_was_named_for(wanted: Needs) -> None:
    assert Needs.read(wanted.queue) == wanted


def test_the_names_are_few_and_readable() -> None:
    assert Needs(gpu="8.9", toolchains=frozenset({"torch"})).queue == "optimize.gpu.sm_89.torch"
    assert len(queues.served(toolchains=KEYS, gpu="12.0")) == 3 * 2 ** len(KEYS)
    for other in ("rollouts", "optimize.plain", "optimize.gpux", "optimize.gpu.sm_8", "optimize.cpu."):
        assert Needs.read(other) is None, other
