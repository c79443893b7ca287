"""Lines that a reader can paste: how to send the first model, and how to write a data set that fits."""

import json
import math
from collections.abc import Mapping
from typing import Any

_NUMPY = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BOOL": "bool", "BYTES": "str_"}
MOST_CELLS = 8
NEW_MODEL = {"name": "fraud-scorer", "description": "Scores card payments."}

IMPORT = {"reference": "hf:sentence-transformers/all-MiniLM-L6-v2@main"}


def first_model(address: str) -> str:
    """`address` is the reader's own, with a slash at its end."""
    return (
        f"curl -X POST {address}api/v1/models/ \\\n"
        '  -H "Authorization: Bearer $SLIPWAY_TOKEN" -H "Content-Type: application/json" \\\n'
        f"  -d '{json.dumps({'name': NEW_MODEL['name']})}'\n" + upload(address, NEW_MODEL["name"])
    )


def upload(address: str, name: str) -> str:
    return (
        f"curl -T model.onnx '{address}api/v1/models/{name}/versions/upload/?filename=model.onnx' \\\n"
        '  -H "Authorization: Bearer $SLIPWAY_TOKEN" -H "Content-Type: application/octet-stream"'
    )


def npz(signature: Mapping[str, Any], *, items: int = 100) -> str:
    """Python that writes a data set of the right names, types and shapes, with zeros to be replaced."""
    lines = ["import numpy as np", "", f"items = {items}", "np.savez_compressed(", '    "items.npz",']
    arrays = ", ".join(f"{tensor['name']!r}: {_array(tensor)}" for tensor in signature["inputs"])
    lines += [f"    **{{{arrays}}},", "    labels=np.zeros(items, np.int64),  # optional", ")"]
    return "\n".join(lines)


def parquet(signature: Mapping[str, Any]) -> str:
    """Python that writes the same as a table: a column of numbers, texts or lists for each input."""
    cells = ", ".join(f"{tensor['name']!r}: [{_cell(tensor)!r}]" for tensor in signature["inputs"])
    return f"import pandas as pd\n\nrows = pd.DataFrame({{{cells}, 'label': [0]}})\nrows.to_parquet('items.parquet')"


def csv(signature: Mapping[str, Any]) -> str:
    """The line of names and one item."""
    names = [*(tensor["name"] for tensor in signature["inputs"]), "label"]
    cells = [_cell(tensor) for tensor in signature["inputs"]]
    shown = [f'"{json.dumps(cell)}"' if isinstance(cell, list) else str(cell) for cell in cells]
    return f"{','.join(names)}\n{','.join([*shown, '0'])}"


def _cell(tensor: Mapping[str, Any]) -> Any:
    """One item, flat; at most so many numbers that it can be read."""
    count = math.prod(size if isinstance(size, int) else 1 for size in tensor["shape"][1:])
    one = "text" if tensor["dtype"] == "BYTES" else 0.0 if tensor["dtype"].startswith("FP") else 0
    return [one] * min(count, MOST_CELLS) if tensor["shape"][1:] else one


def _array(tensor: Mapping[str, Any]) -> str:
    dtype = _NUMPY.get(tensor["dtype"], tensor["dtype"].lower())
    rest = ", ".join(str(size) if isinstance(size, int) else "1" for size in tensor["shape"][1:])
    return f"np.zeros((items, {rest}), np.{dtype})" if rest else f"np.zeros(items, np.{dtype})"
