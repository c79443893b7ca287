"""Zipped folders of transformers: the two files that are data are kept, and what asks for code is refused."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from controlplane.core.errors import Unprocessable

type Look = Callable[..., dict[str, Any]]
type Refused = Callable[..., Unprocessable]

CONFIG = {
    "_name_or_path": "/home/somebody/run-7",
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "hidden_size": 4,
    "id2label": {"0": "no", "1": "maybe", "2": "yes"},
    "vocab_size": 30,
}
TENSORS = {"embeddings.weight": np.ones((30, 4), np.float32), "head.bias": np.zeros(3, np.float32)}


def safetensors(header: dict[str, Any] | None = None, *, more: bytes = b"") -> bytes:
    rows, at = {}, 0
    for name, array in TENSORS.items():
        rows[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(rows | (header or {})).encode()
    body = b"".join(array.tobytes() for array in TENSORS.values())
    return len(text).to_bytes(8, "little") + text + body + more


def folder(
    weights: bytes | None = None, *, at: str = "", files: dict[str, bytes] | None = None, **changes: Any
) -> bytes:
    members = {
        "config.json": json.dumps(CONFIG | changes).encode(),
        "model.safetensors": safetensors() if weights is None else weights,
        "vocab.txt": b"[PAD]",
        **(files or {}),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(f"{at}{name}", body)
    return out.getvalue()


@pytest.mark.parametrize("at", ["", "my-model/"])
def test_a_folder_is_registered_with_the_signature_of_its_task(at: str, look: Look) -> None:
    found = look(folder(at=at, files={"pytorch_model.bin": b"\x80\x02}."}))
    assert found["signature"] == {
        "inputs": [
            {"name": name, "dtype": "INT64", "shape": ["batch", "sequence"]}
            for name in ("input_ids", "attention_mask")
        ],
        "outputs": [{"name": "logits", "dtype": "FP32", "shape": ["batch", 3]}],
        "batch_axis": 0,
    }
    assert found["summary"]["parameters"] == 123
    with zipfile.ZipFile(io.BytesIO(found["kept"])) as archive:
        assert archive.namelist() == ["config.json", "model.safetensors"]
        assert archive.read("model.safetensors") == safetensors()
        assert b"somebody" not in archive.read("config.json")


REFUSED = {
    "code of its own": (folder(auto_map={"AutoModel": "mine.Model"}), "unsafe_format", "auto_map"),
    "code further in": (folder(text_config={"auto_map": {"A": "b"}}), "unsafe_format", "auto_map"),
    "a quantizer": (folder(quantization_config={"quant_method": "x"}), "bad_folder", "quantized"),
    "no architecture": (folder(architectures=None), "bad_folder", "one architecture"),
    "an architecture that is code": (folder(architectures=["os.system"]), "bad_folder", "one architecture"),
    "a generator": (folder(model_type="gpt2"), "unsupported_signature", "gpt2"),
    "a task that is not known": (
        folder(architectures=["BertForPreTraining"]),
        "unsupported_signature",
        "BertForPre",
    ),
    "no JSON": (folder(files={"config.json": b"{"}), "bad_folder", "not JSON"),
    "weights that are a pickle": (folder(b"\x80\x02}."), "bad_folder", "no safetensors"),
    "weights that are cut": (folder(safetensors()[:-4]), "bad_folder", "492 are declared"),
    "more than weights": (folder(safetensors(more=b"more")), "bad_folder", "492 are declared"),
    "a tensor that reaches out": (
        folder(safetensors({"x": {"dtype": "F32", "shape": [2], "data_offsets": [492, 493]}})),
        "bad_tensor",
        "“x”",
    ),
    "tensors that overlap": (
        folder(safetensors({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})),
        "bad_tensor",
        "its place",
    ),
    "a header of nonsense": (folder(safetensors({"x": 1})), "bad_folder", "header"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_refused_with_the_reason(kind: str, refused_here: Refused) -> None:
    body, code, why = REFUSED[kind]
    error = refused_here(body)
    assert error.code == code
    assert why in error.detail


def shard(*names: str) -> bytes:
    rows, at = {}, 0
    for name in names:
        size = TENSORS[name].nbytes
        rows[name] = {"dtype": "F32", "shape": list(TENSORS[name].shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(rows).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(TENSORS[name].tobytes() for name in names)


def split(shards: dict[str, bytes], *, at: str = "") -> bytes:
    members = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors.index.json": b"{}", **shards}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, body in members.items():
            archive.writestr(f"{at}{name}", body)
    return out.getvalue()


SHARDS = {
    "model-00002-of-00002.safetensors": shard("head.bias"),
    "model-00001-of-00002.safetensors": shard("embeddings.weight"),
}


@pytest.mark.parametrize("at", ["", "my-model/"])
def test_weights_that_are_split_become_one_file(at: str, look: Look) -> None:
    found = look(split(SHARDS, at=at))
    assert found["summary"]["parameters"] == 123
    with zipfile.ZipFile(io.BytesIO(found["kept"])) as kept:
        assert sorted(kept.namelist()) == ["config.json", "model.safetensors"]
        weights = kept.read("model.safetensors")
    length = int.from_bytes(weights[:8], "little")
    header, values = json.loads(weights[8 : 8 + length]), weights[8 + length :]
    assert (8 + length) % 8 == 0
    for name, array in TENSORS.items():
        first, last = header[name]["data_offsets"]
        assert values[first:last] == array.tobytes()
    assert len(values) == sum(array.nbytes for array in TENSORS.values())


@pytest.mark.parametrize(
    ("shards", "said"),
    [
        ({name: body for name, body in SHARDS.items() if "00001" in name}, "1 of them"),
        (SHARDS | {"model-00003-of-00003.safetensors": shard("head.bias")}, "3 of them"),
        (SHARDS | {"model-00002-of-00002.safetensors": shard("embeddings.weight")}, "two of its files have"),
        (SHARDS | {"model-00002-of-00002.safetensors": b"short"}, "00002-of-00002.safetensors” is no"),
    ],
)
def test_split_weights_that_do_not_make_one_model_are_refused(
    shards: dict[str, bytes], said: str, refused_here: Refused
) -> None:
    error = refused_here(split(shards))
    assert error.code == "bad_folder"
    assert said in error.detail.lower() or said in error.detail
