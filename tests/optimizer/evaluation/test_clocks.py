"""Clocks as kernels and drivers tell them. The GPU here is a twin of NVML: the calls that its header declares."""

import ctypes
from pathlib import Path
from typing import Any

import pytest

from controlplane.registry.clocks import in_words
from optimizer.evaluation import clocks
from optimizer.evaluation.report import plain

CPUINFO = """processor\t: 0
model name\t: A
cpu MHz\t\t: 2596.144

processor\t: 1
model name\t: A
cpu MHz\t\t: 3100.000

"""
UUID = "GPU-b9b1a4ee-35cf-5e75-7e6a-4a3e4a4c2f01"


class Nvml:
    """Two GPUs; the second does not tell its clocks."""

    def __init__(self, *, starts: bool = True) -> None:
        self.starts = starts
        self.ended = False

    def nvmlInit_v2(self) -> int:
        return 0 if self.starts else 9

    def nvmlShutdown(self) -> int:
        self.ended = True
        return 0

    def nvmlSystemGetDriverVersion(self, buffer: Any, length: Any) -> int:
        buffer.value = b"550.54.15"
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        handle._obj.value = index.value + 1
        return 0

    def nvmlDeviceGetUUID(self, handle: Any, buffer: Any, length: Any) -> int:
        buffer.value = UUID.encode() if handle.value == 1 else b"GPU-other"
        return 0

    def nvmlDeviceGetName(self, handle: Any, buffer: Any, length: Any) -> int:
        buffer.value = b"NVIDIA L4"
        return 0

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: Any, mhz: Any) -> int:
        mhz._obj.value = {0: 2040, 2: 6250}[kind.value]
        return 0 if handle.value == 1 else 3


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(clocks, "_CPUFREQ", tmp_path)
    monkeypatch.setattr(clocks, "_CPUINFO", tmp_path / "cpuinfo")
    return tmp_path


def test_the_frequency_driver_is_asked_first_then_cpuinfo_and_the_source_is_kept(no_driver: Path) -> None:
    nothing = clocks.now([0, 1])
    assert (nothing.cpu_mhz, nothing.cpu_source) == ((), "")
    (no_driver / "cpuinfo").write_text(CPUINFO)
    assert clocks.now([1]) == clocks.Clocks(cpu_mhz=(3100.0,), cpu_source="/proc/cpuinfo", gpus=clocks.gpus())
    assert clocks.now([0, 7]).cpu_mhz == ()
    folder = no_driver / "cpu1/cpufreq"
    folder.mkdir(parents=True)
    (folder / "scaling_cur_freq").write_text("1200000\n")
    assert clocks.now([1]).cpu_mhz == (1200.0,)
    assert clocks.now([0, 1]).cpu_source == "/proc/cpuinfo"


def test_a_gpu_tells_its_clocks_and_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first, second = clocks.gpus()
    assert (first.uuid, first.name, first.driver) == (UUID, "NVIDIA L4", "550.54.15")
    assert (first.graphics_mhz, first.memory_mhz) == (2040, 6250)
    assert (second.graphics_mhz, second.memory_mhz) == (None, None)
    assert nvml.ended
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", UUID)
    assert clocks.gpus() == (first,)
    now = plain(clocks.Clocks(cpu_mhz=(), cpu_source="", gpus=(first,)))
    assert in_words({"method": {"clocks_before": now, "clocks_after": now}}) == [
        ("Processor clock", "not available on this machine"),
        (
            "Clock of NVIDIA L4",
            "graphics 2,040 MHz before, 2,040 MHz after; memory 6,250 MHz before, 6,250 MHz after (driver 550.54.15)",
        ),
    ]


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Nvml(starts=False))
    assert clocks.gpus() == ()

    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert clocks.gpus() == ()


def test_reports_from_before_say_nothing_of_clocks() -> None:
    assert in_words({"method": {}}) == []
    assert in_words({}) == []
