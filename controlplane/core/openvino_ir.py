"""OpenVINO IR as one file, and how it is opened: what measures it and what serves it must not differ in that.

An IR is a graph in XML beside its weights. Both lie in one archive as they are, because an artifact is one file.
Imports neither OpenVINO nor anything of ours: the optimizer and the serving stack each bring their own runtime.
"""

import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

GRAPH, WEIGHTS = "model.xml", "model.bin"
PRECISION = ("slipway", "inference_precision")
"""Where the graph's own notes say what it computes in, f32 or bf16; see `properties`."""


class NotAnArchive(ValueError):
    """The file is not an IR in an archive of ours; the message says why."""


def pack(graph: bytes, weights: bytes, path: Path) -> None:
    """The same IR makes the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in ((GRAPH, graph), (WEIGHTS, weights)):
            archive.writestr(zipfile.ZipInfo(name), content)


def unpack(path: Path) -> tuple[bytes, bytes]:
    """Graph and weights. Raises NotAnArchive, and OSError where there is no file. Cost: the file, once in memory."""
    with path.open("rb") as file:
        try:
            return _members(file)
        except NotAnArchive:
            raise
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, struct.error) as error:
            raise NotAnArchive(f"The archive cannot be read: {error}") from error


def _members(file: IO[bytes]) -> tuple[bytes, bytes]:
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        if sorted(info.filename for info in infos) != sorted((GRAPH, WEIGHTS)):
            raise NotAnArchive(f"The archive does not hold {GRAPH} and {WEIGHTS}, and nothing else.")
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise NotAnArchive("Its members are compressed; an IR is kept as it is.")
        graph, weights = archive.read(GRAPH), archive.read(WEIGHTS)
    if not graph.startswith(b"<?xml"):
        # OpenVINO would try its other readers on whatever else this is.
        raise NotAnArchive(f"{GRAPH} is not XML.")
    return graph, weights


def properties(*, threads: int, precision: str) -> dict[str, str | int | bool]:
    """How it is compiled for a CPU. `precision` is what floating point is computed in, f32 or bf16.

    It is always said, because OpenVINO else takes BF16 wherever the processor has it, and the same file would answer
    otherwise on another machine. One stream: whoever asks computes, and no core is pinned behind the caller's back.
    """
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": precision,
    }


class Opened:
    """A compiled model with ONNX Runtime's `run`. One request at a time. `inputs` and `outputs` are names as in the
    file: once compiled, a port also has those of values that became the same tensor.

    Where it has one thread, that is the one that asks: no worker of OpenVINO's computes beside it.
    """

    def __init__(self, core: Any, path: Path, *, threads: int) -> None:
        """`core` is an `openvino.Core`. Raises NotAnArchive, and what OpenVINO raises. Cost: the file, twice in
        memory."""
        graph, weights = unpack(path)
        model = core.read_model(model=graph, weights=weights)
        del graph, weights  # it has copied them, and compiling takes memory of its own
        self.inputs, self.outputs = (
            tuple(min(port.get_names(), default="") for port in ports)
            for ports in (model.inputs, model.outputs)
        )
        notes = list(PRECISION)
        precision = str(model.get_rt_info(notes).astype(str)) if model.has_rt_info(notes) else "f32"
        self.compiled = core.compile_model(model, "CPU", properties(threads=threads, precision=precision))
        self._request = self.compiled.create_infer_request()

    def run(self, outputs: Sequence[str], feed: Mapping[str, Any], /) -> list[Any]:
        """Arrays of the caller's own."""
        self._request.infer(feed, share_inputs=True, share_outputs=True)
        return [self._request.get_tensor(name).data.copy() for name in outputs]
