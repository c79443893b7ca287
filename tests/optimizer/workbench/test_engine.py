"""An engine behind the two words of ONNX Runtime, on a played GPU. On a real one: techniques/test_tensorrt.py."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.workbench.engine import Engine, EngineFailed, runtime_of

SEVERITY = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)
MOST = 4


class Logger:
    Severity = SEVERITY

    def log(self, severity: int, message: str) -> None: ...


class Mode(IntEnum):
    INPUT = 1
    OUTPUT = 2


@dataclass
class Card:
    """CUDA's runtime on the memory of this process. A stream does nothing before it is waited for, as a slow one."""

    capacity: int = 2**20
    memory: dict[int, Any] = field(default_factory=dict)
    waiting: list[Callable[[], object]] = field(default_factory=list)
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def cudaStreamCreate(self) -> tuple[int, int]:
        return 0, 7

    def cudaMalloc(self, size: int) -> tuple[int, int | None]:
        assert size > 0
        if sum(map(len, self.memory.values())) + size > self.capacity:
            return 2, None
        room = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(room)] = room
        return 0, ctypes.addressof(room)

    def cudaFree(self, address: int) -> tuple[int]:
        del self.memory[address]
        return (0,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        on_card = to if kind == 1 else source
        assert stream == 7
        assert len(self.memory[on_card]) >= size
        self.waiting.append(lambda: ctypes.memmove(to, source, size))
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        while self.waiting:
            self.waiting.pop(0)()
        return (0,)

    def cudaGetErrorString(self, status: int) -> tuple[int, bytes]:
        return 0, b"out of memory"


class Context:
    """Of an engine whose y is twice its x, for up to four rows of three."""

    def __init__(self, card: Card, log: Logger) -> None:
        self.card, self.log = card, log
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if len(shape) != 2 or not 1 <= shape[0] <= MOST or shape[1] != 3:
            self.log.log(SEVERITY.ERROR, f"IExecutionContext::setInputShape: {shape} is outside the profile")
            return False
        self.shape = shape
        return True

    def infer_shapes(self) -> list[str]:
        return [] if self.shape else ["x"]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        def work() -> None:
            count = int(np.prod(self.shape))
            kind = ctypes.c_float * count
            x, y = (kind.from_address(self.addresses[name]) for name in ("x", "y"))
            y[:] = [2 * value for value in x]

        assert stream == 7
        self.card.waiting.append(work)
        return True


def played(card: Card, *, loads: bool = True) -> Any:
    """A `tensorrt_rtx` whose only engine is that of Context."""

    class Runtime:
        def __init__(self, log: Logger) -> None:
            self.log = log

        def deserialize_cuda_engine(self, content: bytes) -> Any:
            if not loads:
                self.log.log(SEVERITY.WARNING, "not this")
                self.log.log(SEVERITY.ERROR, "Serialization assertion failed.")
                return None
            return SimpleNamespace(
                num_io_tensors=2,
                get_tensor_name=["x", "y"].__getitem__,
                get_tensor_mode=lambda name: Mode.INPUT if name == "x" else Mode.OUTPUT,
                get_tensor_dtype=lambda name: "float",
                create_runtime_config=SimpleNamespace,
                create_execution_context=lambda config: (
                    Context(card, self.log)
                    if config.dynamic_shapes_kernel_specialization_strategy == "eager"
                    else None
                ),
            )

    return SimpleNamespace(
        ILogger=Logger,
        Runtime=Runtime,
        TensorIOMode=Mode,
        nptype=lambda dtype: np.float32,
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager"),
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "made.engine"
    path.write_bytes(b"an engine")
    return path


@pytest.mark.parametrize(
    ("begins", "package"), [(b"vtrt", "tensorrt_rtx"), (b"ptrt", "tensorrt"), (b"", "tensorrt")]
)
def test_the_package_that_loads_an_engine_is_read_from_its_first_bytes(
    file: Path, begins: bytes, package: str
) -> None:
    file.write_bytes(begins)
    assert runtime_of(file) == package


@given(st.lists(st.integers(1, MOST), min_size=1, max_size=6))
def test_requests_of_any_sizes_one_after_another_are_answered_each_with_its_own(sizes: list[int]) -> None:
    card = Card()
    opened = Engine(played(card), card, Path(__file__))
    for number, rows in enumerate(sizes):
        x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) + number
        (y,) = opened.run(["y"], {"x": x})
        np.testing.assert_array_equal(y, 2 * x)
    assert len(card.memory) == 2, "what a larger request replaced was not given back"
    assert sorted(map(len, card.memory.values())) == [max(sizes) * 12] * 2


def test_an_array_that_is_not_contiguous_or_of_another_type_arrives_as_the_engine_takes_it(
    file: Path,
) -> None:
    card = Card()
    x = np.arange(12, dtype=np.float64).reshape(3, 4).T
    (y,) = Engine(played(card), card, file).run([], {"x": x})
    np.testing.assert_array_equal(y, 2 * x)


def test_what_tensorrt_and_cuda_refuse_is_told_in_their_words(file: Path) -> None:
    card = Card()
    with pytest.raises(EngineFailed, match=r"cannot be loaded: Serialization assertion failed\."):
        Engine(played(card, loads=False), card, file)
    opened = Engine(played(card), card, file)
    with pytest.raises(EngineFailed, match=r"takes no x of \[5, 3\]: .*outside the profile"):
        opened.run(["y"], {"x": np.ones((5, 3), np.float32)})
    card.capacity = 20
    with pytest.raises(EngineFailed, match="CUDA: out of memory"):
        opened.run(["y"], {"x": np.ones((1, 3), np.float32)})


def test_a_failed_request_leaves_the_next_one_alone(file: Path) -> None:
    card = Card(capacity=20)
    opened = Engine(played(card), card, file)
    for capacity in (20, 2**20):
        card.capacity = capacity
        with suppress(EngineFailed):
            (y,) = opened.run(["y"], {"x": np.ones((1, 3), np.float32)})
    assert y.tolist() == [[2, 2, 2]]
