"""The runtimes that models are served by, one per format, behind one small interface.

Each is imported when a model is opened, so the port answers before the library is read. They are set as the optimizer
sets them when it measures: what was measured is what is served.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from controlplane.core import onnx_session, openvino_ir
from deployments.stacks.fastapi.tensors import Array

_FATAL = 4


class Model(Protocol):
    """Names, and one run at a time."""

    @property
    def inputs(self) -> set[str]: ...

    @property
    def outputs(self) -> set[str]: ...

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array], /) -> Sequence[Array]:
        """In the order of `outputs`. Raises whatever the runtime raises."""


type OpenModel = Callable[[Path, int], Model]
"""Takes the file and the number of threads. Raises whatever the runtime raises."""


class OnnxRuntimeModel:
    """See `onnx_session.set_up`."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnx_session.set_up(onnxruntime.SessionOptions(), threads=threads)
        # Only what kills the process: errors come back as exceptions, and stderr carries one JSON object a line.
        options.log_severity_level = _FATAL
        onnxruntime.set_default_logger_severity(_FATAL)
        self._session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self.inputs = {one.name for one in self._session.get_inputs()}
        self.outputs = {one.name for one in self._session.get_outputs()}
        self.run: Callable[[Sequence[str], Mapping[str, Any]], Sequence[Array]] = self._session.run


class OpenVinoModel:
    """See `openvino_ir.Opened`."""

    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        opened = openvino_ir.Opened(openvino.Core(), path, threads=threads)
        self.inputs, self.outputs = set(opened.inputs), set(opened.outputs)
        self.run = opened.run


OPENERS: Mapping[str, OpenModel] = MappingProxyType({"onnx": OnnxRuntimeModel, "openvino": OpenVinoModel})
