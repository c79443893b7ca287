"""Whether what a technique made is a model, and the same kind of model as its parent."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from controlplane.core.errors import Unprocessable
from optimizer.techniques.graph import op_types, read
from optimizer.workbench.session import first_line, open_session, pass_on
from optimizer.workbench.signature import Signature


def check_result(path: Path, *, parent: Path, signature: Signature, seed: int) -> dict[str, int]:
    """Counts of the result's nodes, if it is valid, opens in ONNX Runtime and has the parent's inputs and outputs.

    Raises Unprocessable: `result_invalid`, `model_does_not_open`, `result_differs`. Whether the numbers are
    any good is the evaluation's question.
    """
    import onnx

    if not path.is_file():
        raise Unprocessable("result_invalid", "The technique left no file.")
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:  # ValidationError, and ValueError of protobuf
        pass_on(error)
        raise Unprocessable(
            "result_invalid", "The result is not a valid ONNX model.", first_line(error)
        ) from error
    made, original = open_session(path), open_session(parent)
    for what, ours, theirs in (
        ("inputs", made.get_inputs(), original.get_inputs()),
        ("outputs", made.get_outputs(), original.get_outputs()),
    ):
        if difference := _difference(ours, theirs):
            raise Unprocessable("result_differs", f"The result has other {what} than its parent.", difference)
    return op_types(read(path))


def _difference(ours: list[Any], theirs: list[Any]) -> str:
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


def versions() -> dict[str, str]:
    """Versions of what made the file: part of the cache key and of every bug report."""
    return {name: version(name) for name in ("onnx", "onnxruntime", "onnxslim", "numpy")}
