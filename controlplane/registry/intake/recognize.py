"""What a file is, by its bytes. Names and media types are not looked at: they are the sender's claim.

An allow-list: ONNX and zip go on, everything else is refused, and what is recognised is called by its name,
because "your download was an error page" helps and "invalid protobuf" does not.
"""

import re
from enum import Enum
from pathlib import Path

from controlplane.core.errors import Unprocessable

HEAD_BYTES = 4096
MAX_SAFETENSORS_HEADER = 100_000_000


class Kind(Enum):
    ONNX = "onnx"
    ZIP = "zip"


NOT_ONNX = "This file is not an ONNX model."
UNSAFE = "This format can run code when it is loaded, so it is never opened."
_ENGINE = "Engines are not accepted: an engine is a program."
_KERAS = "Keras 3 writes ONNX itself: model.export('model.onnx', format='onnx')"
_EXPORT = "Export the model to ONNX where you trained it, and upload the .onnx file."

# Offset, bytes, what it is.
_OTHER_FILES = (
    (0, b"\x7fELF", "a Linux program or library (ELF)"),
    (0, b"MZ", "a Windows program or library"),
    (0, b"\xcf\xfa\xed\xfe", "a macOS program or library"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\x00", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"GGUF", "a GGUF model"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "a model in ONNX Runtime's own format"),
    (0, b"SQLite format 3", "an SQLite database"),
    (0, b"PAR1", "a Parquet table"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)
_UNSAFE_FILES = (
    (0, b"\x89HDF\r\n\x1a\n", f"a Keras or HDF5 file. {_KERAS}"),
    (0, b"\xac\xed\x00\x05", "a serialized Java object"),
)
_ENGINES = ((0, b"ptrt"), (0, b"ftrt"), (0, b"vtrt"))
_BINARY_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_TEXT_PICKLE = re.compile(
    rb"\(?(?:[(\])}]?[dlt]?p\d+\n|c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n|i[A-Za-z_][\w.]*\n)"
)
_MARKUP = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|body|\?xml|!--|net\b)", re.IGNORECASE)
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]{32,}")


def kind_of(path: Path) -> Kind:
    """Raises Unprocessable (`empty_file`, `not_onnx`, `unsafe_format`, `engine_refused`)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise empty_file()
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Kind.ZIP
    _refuse_known(head, size)
    return Kind.ONNX


def _refuse_known(head: bytes, size: int) -> None:
    for offset, magic, name in _UNSAFE_FILES:
        if head[offset:].startswith(magic):
            raise _unsafe(f"This is {name}.")
    if _BINARY_PICKLE.match(head) or _TEXT_PICKLE.match(head):
        raise _unsafe(
            "This is a Python pickle (PyTorch .pt, joblib and the like). A scikit-learn model is taken as "
            "skops.io.dump writes it."
        )
    if any(head[offset:].startswith(magic) for offset, magic in _ENGINES):
        raise Unprocessable(
            "engine_refused", _ENGINE, "This is a TensorRT engine. Upload the ONNX model it came from."
        )
    for offset, magic, name in _OTHER_FILES:
        if head[offset:].startswith(magic):
            raise not_onnx(f"This is {name}.")
    if _MARKUP.match(head):
        raise not_onnx("This is a web page or XML, perhaps the error page of a failed download.")
    if _is_safetensors(head, size):
        raise not_onnx(
            "This is a safetensors file, which holds weights without the graph. Zipped with its config.json it is a "
            "transformers folder, which is accepted."
        )
    if _TEXT.fullmatch(head):
        raise not_onnx("This is a text file.")


def empty_file() -> Unprocessable:
    return Unprocessable("empty_file", "The file is empty.", "It has 0 bytes. Upload it again.")


def not_onnx(what: str) -> Unprocessable:
    return Unprocessable("not_onnx", NOT_ONNX, f"{what} {_EXPORT}")


def _unsafe(what: str) -> Unprocessable:
    return Unprocessable("unsafe_format", UNSAFE, f"{what} {_EXPORT}")


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return 2 <= length <= min(size - 8, MAX_SAFETENSORS_HEADER) and head[8:9] == b"{"


def refuse_archive_of(names: list[str]) -> None:
    """Zip archives that are models of other frameworks. Raises Unprocessable by the names of the members."""
    base = {name.rpartition("/")[2] for name in names}
    if any(name.endswith((".pkl", ".pickle", ".pt2")) for name in base) or "archive_format" in base:
        raise _unsafe(
            "This archive is a PyTorch file (.pt or TorchScript). TorchScript is taken, where an operator allows it, "
            "in a zip with its signature.json."
        )
    if "saved_model.pb" in base:
        raise _unsafe("This archive holds a TensorFlow SavedModel.")
    if any(name.endswith((".h5", ".keras")) for name in base):
        raise _unsafe(f"This archive is a Keras model. {_KERAS}.")
    if names and all(name.endswith(".npy") for name in names):
        raise not_onnx("This is an npz archive of NumPy arrays. Data sets are uploaded beside a model.")
