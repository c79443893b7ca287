"""What one build timed on a GPU is there for the next one, and nothing that can happen to it costs more than time."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optimizer.domain.jobs import FailureReason
from optimizer.techniques import technique
from optimizer.worker import caches, gpus, hardware
from optimizer.worker.gpus import Found, Gpu
from optimizer.worker.hold import Cancelled, StepFailed

L4 = Gpu(uuid="GPU-1", name="NVIDIA L4", capability="8.9")
SLICE = Gpu(uuid="GPU-2", name="NVIDIA H100 80GB HBM3", capability="9.0", mig={"MIG-1": "1g.10gb"})


class Machine:
    """A home, and the GPU and the TensorRT that its worker has."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self._monkeypatch = home, monkeypatch
        self.has(L4)

    def has(self, *found: Gpu, version: str = "11.4.0.106") -> None:
        self._monkeypatch.setattr(gpus, "found", lambda: Found(gpus=found))
        self._monkeypatch.setattr(hardware, "toolchains", lambda: {"tensorrt": {"tensorrt": version}})

    @property
    def kept(self) -> list[Path]:
        return sorted((self.home / "caches").glob("*"))

    def build(
        self, makes: bytes | None = None, *, key: str = "tensorrt", ends: Exception | None = None
    ) -> bytes | None:
        """What a child finds; it leaves `makes`. None where there is nothing to begin with. `ends`: how it ends."""
        folder = self.home / "attempt"
        folder.mkdir()
        try:
            with caches.lent(technique(key), toolchain="tensorrt", folder=folder) as cache:
                if cache is None:
                    return None
                found = cache.read_bytes() if cache.exists() else None
                if makes is not None:
                    cache.write_bytes(makes)
                if ends is not None:
                    raise ends
                return found
        finally:
            shutil.rmtree(folder)


@pytest.fixture
def machine(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, home=tmp_path)
    return Machine(tmp_path, monkeypatch)


def test_the_next_build_on_the_same_kind_of_gpu_and_version_begins_with_it(machine: Machine) -> None:
    assert machine.build(b"first") is None
    assert machine.build(b"second") == b"first"
    assert machine.build() == b"second"
    machine.has(replace(L4, uuid="GPU-9"))
    assert machine.build() == b"second", "another card of the same kind"
    machine.has(L4, version="11.5.0.1")
    assert machine.build(b"newer") is None
    machine.has(SLICE)
    assert machine.build(b"slice") is None
    machine.has(replace(SLICE, mig={"MIG-2": "3g.40gb"}))
    assert machine.build() is None
    assert [path.name for path in machine.kept] == [
        "tensorrt-tensorrt-11.4.0.106-NVIDIA-H100-80GB-HBM3-9.0-1g.10gb",
        "tensorrt-tensorrt-11.4.0.106-NVIDIA-L4-8.9",
        "tensorrt-tensorrt-11.5.0.1-NVIDIA-L4-8.9",
    ]


def test_without_a_gpu_and_for_what_caches_nothing_there_is_none(machine: Machine) -> None:
    assert machine.build(b"made", key="fp16") is None
    machine.has()
    assert machine.build(b"made") is None
    assert machine.kept == []


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 100])
def test_a_damaged_file_is_never_lent_and_soon_replaced(machine: Machine, damage: bytes) -> None:
    machine.build(b"made")
    (kept,) = machine.kept
    kept.write_bytes(damage)
    assert machine.build(b"anew") is None
    assert machine.build() == b"anew"
    kept.unlink()
    kept.mkdir()
    assert machine.build(b"it cannot be kept") is None


def test_two_at_once_leave_one_whole_file(machine: Machine) -> None:
    machine.build(b"old")
    with ExitStack() as both:
        copies = []
        for name in ("one", "two"):
            folder = machine.home / name
            folder.mkdir()
            lent = caches.lent(technique("tensorrt"), toolchain="tensorrt", folder=folder)
            copies.append(both.enter_context(lent))
        for copy, content in zip(copies, (b"one" * 999, b"two" * 999), strict=True):
            assert copy is not None
            assert copy.read_bytes() == b"old"
            copy.write_bytes(content)
    assert machine.build() == b"one" * 999, "its block ended last"
    assert len(machine.kept) == 1


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (StepFailed(FailureReason.CRASHED, "It crashed with SIGSEGV."), None),
        (StepFailed(FailureReason.REFUSED, "It has an operator that TensorRT lacks."), b"made"),
        (Cancelled(), b"made"),
    ],
)
def test_what_was_there_at_a_crash_is_dropped_and_what_failed_leaves_nothing(
    machine: Machine, error: Exception, left: bytes | None
) -> None:
    machine.build(b"made")
    with pytest.raises(type(error)):
        machine.build(b"half", ends=error)
    assert machine.build() == left


def test_it_is_bounded_and_follows_no_link(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "LIMIT_BYTES", 10)
    machine.build(b"made")
    machine.build(b"more than ten bytes")
    assert machine.build() is None, "it begins anew"
    for number in range(2 * caches.FILES):
        machine.has(L4, version=f"11.{number}")
        machine.build(b"made")
    assert len(machine.kept) == caches.FILES
    assert machine.build() == b"made", "the latest stay"
    (machine.home / "secret").write_bytes(b"secret")
    with caches.lent(technique("tensorrt"), toolchain="tensorrt", folder=machine.home) as cache:
        assert cache is not None
        cache.unlink()
        cache.symlink_to(machine.home / "secret")
    assert machine.build() == b"made"
