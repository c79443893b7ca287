"""A small labelled set for the demo's file-type classifier, made of files at hand when the demo runs.

The label is what the file's suffix says; files are taken from this Python's libraries and the project itself,
so nothing is downloaded and nothing is shipped. Features are Magika's (v2): the first and the last 1,024 bytes
of the file without surrounding white space, as tokens 0 to 255, padded with 256.
"""

import json
import random
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

MODEL = "models/standard_v3_3"
HALF = 1024
BLOCK = 4096
PADDING = 256
PER_LABEL = 40
MIN_BYTES = 64
SEED = 7
LABEL_OF_SUFFIX = {
    ".py": "python", ".pyc": "pythonbytecode", ".so": "elf", ".html": "html", ".css": "css", ".js": "javascript",
    ".json": "json", ".md": "markdown", ".rst": "rst", ".c": "c", ".xml": "xml", ".svg": "svg", ".png": "png",
    ".gif": "gif", ".zip": "zip", ".sql": "sql", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".po": "po",
    ".ttf": "ttf", ".woff2": "woff2", ".gz": "gzip", ".npy": "npy", ".npz": "npz", ".onnx": "onnx", ".sh": "shell",
    ".ts": "typescript", ".ini": "ini", ".csv": "csv", ".pem": "pem", ".wasm": "wasm", ".scss": "scss",
}  # fmt: skip


def model_folder() -> Path:
    """Where the package keeps its model. Raises LookupError when it is not installed."""
    spec = find_spec("magika")
    if spec is None or not spec.submodule_search_locations:
        raise LookupError("the package magika is not installed; `make demo` installs it")
    return Path(spec.submodule_search_locations[0]) / MODEL


def features(content: bytes) -> list[int]:
    """2,048 tokens: beginning and end of the content."""
    head = content[:BLOCK].lstrip()[:HALF]
    tail = content[-BLOCK:].rstrip()[-HALF:]
    return [*head, *[PADDING] * (HALF - len(head)), *[PADDING] * (HALF - len(tail)), *tail]


def labelled(roots: Iterable[Path]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Inputs of shape (items, 2048) int32 and class numbers of shape (items,) int64, shuffled with a fixed seed."""
    names = json.loads((model_folder() / "config.min.json").read_text())["target_labels_space"]
    number = {name: index for index, name in enumerate(names)}
    chosen = random.Random(SEED)  # noqa: S311  a sample, not a secret
    by_label: dict[str, list[Path]] = defaultdict(list)
    for path in _files(roots):
        by_label[LABEL_OF_SUFFIX[path.suffix]].append(path)
    items = [
        (features(path.read_bytes()), number[label])
        for label, paths in sorted(by_label.items())
        for path in chosen.sample(paths, min(PER_LABEL, len(paths)))
    ]
    chosen.shuffle(items)
    return np.array([tokens for tokens, _ in items], np.int32), np.array(
        [label for _, label in items], np.int64
    )


def _files(roots: Iterable[Path]) -> Iterator[Path]:
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.suffix in LABEL_OF_SUFFIX and path.is_file() and path.stat().st_size >= MIN_BYTES:
                yield path


def roots_at_hand(project: Path) -> list[Path]:
    """This interpreter's own library, what is installed beside it, and the project's front-end packages."""
    found = {
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("purelib"),
        str(project / "node_modules"),
        sys.prefix,
    }
    return [Path(root) for root in sorted(found) if Path(root).is_dir()]
