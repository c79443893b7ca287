"""Whether what a technique made is a model, and the same kind of model as its parent."""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from controlplane.core.errors import Unprocessable
from optimizer.techniques.graph import op_types, read, summary_of
from optimizer.techniques.port import Work
from optimizer.toolchains import TOOLCHAINS
from optimizer.workbench.formats import FORMATS, open_as
from optimizer.workbench.session import first_line, open_session, pass_on
from optimizer.workbench.signature import Signature


class Port(NamedTuple):
    """An input or output. A dimension that is free is a name, or nothing."""

    name: str
    type: str
    shape: list[Any] | None


ORT_TYPES = {
    "BOOL": "bool", "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "UINT8": "uint8",
    "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "FP16": "float16", "FP32": "float", "FP64": "double",
    "BYTES": "string",
}  # fmt: skip
"""ONNX Runtime's words for the types of a signature."""


def check_result(path: Path, *, made: str, work: Work) -> dict[str, int]:
    """Counts of the result's nodes, if it is a model of the format `made` with the inputs and outputs of what it was
    made from; nothing counted where it is not ONNX. What it was made from is the file where that is ONNX as well, else
    its signature.

    Raises Unprocessable: `result_invalid`, `model_does_not_open`, `result_differs`. Whether the numbers are
    any good is the evaluation's question.
    """
    if not path.is_file() or not path.stat().st_size:
        raise Unprocessable("result_invalid", "The technique left no file.")
    if made == "onnx":
        return _check_onnx(path, work)
    if FORMATS[made].opener is not None:
        _check_ports(open_as(made, path), work.signature)
    return {}


def _check_onnx(path: Path, work: Work) -> dict[str, int]:
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except Exception as error:  # ValidationError, and ValueError of protobuf
        pass_on(error)
        raise Unprocessable(
            "result_invalid", "The result is not a valid ONNX model.", first_line(error)
        ) from error
    for what, ours, theirs in zip(("inputs", "outputs"), _ports(path), _ports_of_parent(work), strict=True):
        _refuse_difference(what, ours, theirs)
    return op_types(read(path))


def _ports_of_parent(work: Work) -> tuple[list[Port], list[Port]]:
    """From the parent's own file, or its signature where it is not ONNX."""
    if work.input_format == "onnx":
        return _ports(work.input)
    inputs, outputs = (
        [Port(spec.name, f"tensor({ORT_TYPES[spec.dtype]})", list(spec.shape)) for spec in specs]
        for specs in (work.signature.inputs, work.signature.outputs)
    )
    return inputs, outputs


def precision_of(path: Path, format: str) -> str:
    """What a result is that came from a format which says nothing of it."""
    return summary_of(read(path)).precision or "fp32" if format == "onnx" else "fp32"


def _ports(path: Path) -> tuple[list[Port], list[Port]]:
    """Inputs and outputs of a file in ONNX Runtime's words. The session ends here: it has the weights once more."""
    session = open_session(path)
    inputs, outputs = (
        [Port(node.name, node.type, node.shape) for node in nodes]
        for nodes in (session.get_inputs(), session.get_outputs())
    )
    return inputs, outputs


def _check_ports(session: Any, signature: Signature) -> None:
    """For a session that says its `specs`, which have no order of their own."""
    for what, specs in session.specs().items():
        ours, theirs = (
            sorted(Port(spec.name, spec.dtype, list(spec.shape)) for spec in side)
            for side in (specs, getattr(signature, what))
        )
        _refuse_difference(what, ours, theirs)


def _refuse_difference(what: str, ours: list[Port], theirs: list[Port]) -> None:
    if difference := _difference(ours, theirs):
        raise Unprocessable("result_differs", f"The result has other {what} than its parent.", difference)


def _difference(ours: list[Port], theirs: list[Port]) -> str:
    """The first difference in names, types or fixed dimensions; empty when there is none."""
    if [value.name for value in ours] != [value.name for value in theirs]:
        return f"{[value.name for value in ours]} instead of {[value.name for value in theirs]}."
    for mine, its in zip(ours, theirs, strict=True):
        if mine.type != its.type:
            return f"“{mine.name}” is {mine.type} instead of {its.type}."
        if not _compatible(mine.shape, its.shape):
            return f"“{mine.name}” has shape {mine.shape} instead of {its.shape}."
    return ""


def _compatible(ours: list[Any] | None, theirs: list[Any] | None) -> bool:
    """A fixed dimension stays; one that was open may have become known."""
    if ours is None or theirs is None:
        return True
    return len(ours) == len(theirs) and all(
        not isinstance(its, int) or not isinstance(mine, int) or mine == its
        for mine, its in zip(ours, theirs, strict=True)
    )


def versions(toolchain: str | None) -> dict[str, str]:
    """Versions of what made the file: part of the cache key and of every bug report. Of a toolchain's packages those
    that it has."""
    names = TOOLCHAINS[toolchain].packages if toolchain else ()
    own = {name: version(name) for name in ("onnx", "onnxruntime", "onnxslim", "numpy")}
    for name in names:
        with suppress(PackageNotFoundError):
            own[name] = version(name)
    return own
