"""Which files of a revision are fetched: an ONNX model with its external data, `config.json` with its weights, or a
scikit-learn model of skops.

Nothing else is asked for, whatever lies beside it: a pickle (.bin, .pt, .pkl) is never even fetched.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from controlplane.core.errors import SlipwayError, Unprocessable
from controlplane.registry.intake.transformers_folder import (
    CONFIG,
    SHARD,
    WEIGHTS,
    folder_of,
    weights_by_folder,
)
from controlplane.registry.sources.values import RemoteFile

FIRST = ("model.onnx", "onnx/model.onnx")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".keras", ".msgpack")
_SHOWN = 5
MAX_PATH = 300


def chosen(files: Sequence[RemoteFile], *, path: str = "") -> tuple[RemoteFile, ...]:
    """The model first. Raises Unprocessable that says what there is and what to write. What has a name that nobody
    could write is not seen."""
    by_path = {file.path: file for file in files if file.path.isprintable() and len(file.path) <= MAX_PATH}
    if path:
        if path not in by_path:
            raise _nothing(f"There is no file “{path}”.")
        if not (path.endswith((".onnx", ".skops")) or _has_weights(path)):
            raise _nothing(f"“{path}” is neither an .onnx file nor a .skops file nor {WEIGHTS}.")
        return _with_its_files(path, by_path)
    onnx = [name for name in by_path if name.endswith(".onnx")]
    folders = [
        names[0] for names in weights_by_folder(by_path).values() if _beside(names[0], CONFIG) in by_path
    ]
    skops = [name for name in by_path if name.endswith(".skops")]
    for names in ([name for name in FIRST if name in by_path][:1], onnx, folders, skops):
        if len(names) == 1:
            return _with_its_files(names[0], by_path)
    if several := sorted(onnx or folders or skops):
        raise _nothing(
            f"It has several models: {', '.join(several[:_SHOWN])}. Write one behind the revision: …/{several[0]}."
        )
    raise _nothing(_why_none(by_path))


def _with_its_files(path: str, by_path: Mapping[str, RemoteFile]) -> tuple[RemoteFile, ...]:
    if path.endswith(".onnx"):
        data = [name for name in by_path if name.startswith((f"{path}_data", f"{path}.data"))]
        return by_path[path], *(by_path[name] for name in sorted(data))
    if path.endswith(".skops"):
        return (by_path[path],)
    config = _beside(path, CONFIG)
    if config not in by_path:
        raise _nothing(f"There is no {CONFIG} beside “{path}”.")
    return *(by_path[name] for name in weights_by_folder(by_path)[folder_of(path)]), by_path[config]


def _why_none(names: Iterable[str]) -> str:
    pickles = sorted(name for name in names if name.endswith(_PICKLES))
    if pickles:
        return f"Its weights ({', '.join(pickles[:_SHOWN])}) can run code when they are loaded, and are never fetched."
    return f"It has neither an .onnx file nor a .skops file nor {CONFIG} with {WEIGHTS}."


def _nothing(why: str) -> SlipwayError:
    return Unprocessable(
        "nothing_to_import",
        "Nothing of this model can be imported.",
        f"{why} Taken are ONNX, safetensors and skops.",
    )


def _has_weights(path: str) -> bool:
    return _name(path) == WEIGHTS or SHARD.fullmatch(_name(path)) is not None


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _beside(path: str, name: str) -> str:
    return str(PurePosixPath(path).with_name(name))
