"""Runs a TensorRT engine on the GPU, behind the two words of ONNX Runtime that are used here.

Imports none of the vendor's packages: whoever opens an engine hands them in. Never run by us on a GPU; its calls are
those of the vendor's own samples, and a test compares the names with the packages.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_OF_RTX = b"vtrt"


def runtime_of(path: Path) -> str:
    """The package that loads it, by its first bytes: an environment may have both."""
    with path.open("rb") as file:
        return "tensorrt_rtx" if file.read(len(_OF_RTX)) == _OF_RTX else "tensorrt"


class EngineFailed(Exception):
    """What TensorRT or CUDA said. Neither raises: they return a status, and write the reason into a log."""


class Engine:
    """`trt` is `tensorrt_rtx` or `tensorrt`, `cudart` is `cuda.bindings.runtime`. One request at a time.

    Memory of the GPU is kept between requests and grows to the largest. Kernels for the sizes of a request are made
    when it comes, so that no timing sees a stand-in for them.
    """

    def __init__(self, trt: Any, cudart: Any, path: Path) -> None:
        self._cudart = cudart
        self._log = _log(trt)
        self._runtime = trt.Runtime(self._log)
        self._runtime.engine_host_code_allowed = (
            True  # version compatible engines have some; this process is confined
        )
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise self._failure("The engine cannot be loaded")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self.inputs = [name for name in names if self._mode(name) == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if name not in self.inputs]
        self._dtypes = {name: np.dtype(trt.nptype(self._engine.get_tensor_dtype(name))) for name in names}
        self._context = self._context_of(trt)
        self._stream = self._done(*cudart.cudaStreamCreate())
        self._rooms: dict[str, tuple[int, int]] = {}

    def run(self, outputs: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """Arrays of the named outputs, of all where none is named. Raises EngineFailed."""
        self._log.said.clear()
        for name in self.inputs:
            self._give(name, np.ascontiguousarray(feed[name], dtype=self._dtypes[name]))
        if lacking := self._context.infer_shapes():
            raise EngineFailed(f"The shapes of {', '.join(lacking)} are not known")
        answers = {name: self._take(name) for name in self.outputs}
        if not self._context.execute_async_v3(int(self._stream)):
            raise self._failure("The engine failed")
        for name, answer in answers.items():
            self._copy(answer.ctypes.data, self._rooms[name][0], answer.nbytes, "cudaMemcpyDeviceToHost")
        self._done(*self._cudart.cudaStreamSynchronize(self._stream))
        return [answers[name] for name in outputs or self.outputs]

    def _give(self, name: str, array: Any) -> None:
        if not self._context.set_input_shape(name, array.shape):
            raise self._failure(f"The engine takes no {name} of {list(array.shape)}")
        self._copy(self._room(name, array.nbytes), array.ctypes.data, array.nbytes, "cudaMemcpyHostToDevice")

    def _take(self, name: str) -> Any:
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise EngineFailed(f"The shape of {name} depends on values, so no room can be made for it before")
        answer = np.empty(shape, self._dtypes[name])
        self._room(name, answer.nbytes)
        return answer

    def _room(self, name: str, size: int) -> int:
        """Where the tensor lies on the GPU. Grows it by a new one; nothing runs between two requests."""
        address, held = self._rooms.get(name, (0, 0))
        if not held or held < size:
            if held:
                self._done(*self._cudart.cudaFree(address))
            held = max(size, 1)
            address = int(self._done(*self._cudart.cudaMalloc(held)))
            self._rooms[name] = address, held
        if not self._context.set_tensor_address(name, address):
            raise self._failure(f"The engine has no tensor {name}")
        return address

    def _copy(self, to: int, source: int, size: int, way: str) -> None:
        kind = getattr(self._cudart.cudaMemcpyKind, way)
        self._done(*self._cudart.cudaMemcpyAsync(to, source, size, kind, self._stream))

    def _context_of(self, trt: Any) -> Any:
        if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
            config = self._engine.create_runtime_config()
            config.dynamic_shapes_kernel_specialization_strategy = (
                trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise self._failure("The GPU has no room for what the engine works in")
        return context

    def _mode(self, name: str) -> Any:
        return self._engine.get_tensor_mode(name)

    def _done(self, status: Any, value: Any = None) -> Any:
        if int(status) != 0:
            _, text = self._cudart.cudaGetErrorString(status)
            raise EngineFailed(f"CUDA: {text.decode() if isinstance(text, bytes) else text}")
        return value

    def _failure(self, what: str) -> EngineFailed:
        reasons = [line for line in self._log.said if line]
        return EngineFailed(f"{what}: {reasons[-1]}" if reasons else what)


def _log(trt: Any) -> Any:
    class Said(trt.ILogger):  # type: ignore[misc]
        """Its errors, oldest first."""

        def __init__(self) -> None:
            super().__init__()
            self.said: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.said.append(message)

    return Said()
