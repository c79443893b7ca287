"""TorchScript: taken only where it is allowed, with a signature beside it, and never opened at intake."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake import Bounds, inspected, model_child
from tests.controlplane.registry.intake.models import write, zipped

PORT = {"name": "x", "dtype": "FP32", "shape": ["batch", 4]}
SIGNATURE = {"inputs": [PORT], "outputs": [PORT | {"name": "y"}]}
SCRIPT = {
    "m/data.pkl": b"\x80\x02}.",
    "m/constants.pkl": b"\x80\x02}.",
    "m/code/__torch__.py": b"...",
    "m/version": b"3",
}


def archive(script: dict[str, bytes] | bytes = SCRIPT, signature: Any = SIGNATURE, **more: bytes) -> bytes:
    body = script if isinstance(script, bytes) else zipped(script)
    text = signature if isinstance(signature, bytes) else json.dumps(signature).encode()
    return zipped({"model.pt": body, "signature.json": text, **more})


@pytest.fixture
def allowed(bounds: Bounds) -> Bounds:
    return replace(bounds, torchscript=True)


def test_it_is_refused_with_what_to_do_where_it_is_not_allowed(refused: Callable[..., Unprocessable]) -> None:
    error = refused(archive())
    assert error.code == "unsafe_format"
    assert "torch.export" in error.detail
    assert "SLIPWAY_TORCHSCRIPT" in error.detail


def test_allowed_it_is_kept_with_its_signature_and_nothing_else(tmp_path: Path, allowed: Bounds) -> None:
    with inspected(write(tmp_path, archive()), bounds=allowed) as found:
        assert (found.format, found.signature) == ("torchscript", SIGNATURE | {"batch_axis": 0})
        with zipfile.ZipFile(found.artifact_path) as kept:
            assert sorted(kept.namelist()) == ["model.pt", "signature.json"]
            with zipfile.ZipFile(io.BytesIO(kept.read("model.pt"))) as script:
                assert script.read("m/version") == b"3"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (archive({"m/data.pkl": b"\x80\x02}.", "m/data/0": b""}), "bad_script"),
        (archive(b"\x80\x02}."), "bad_script"),
        (archive(signature=b"not JSON"), "bad_script"),
        (archive(signature={"inputs": [PORT]}), "bad_script"),
        (archive(signature=SIGNATURE | {"batch_axis": 0}), "bad_script"),
        (archive(readme=b"x"), "unsafe_archive"),
        (archive(signature=SIGNATURE | {"outputs": [PORT]}), "unsupported_signature"),
        (archive(signature=SIGNATURE | {"outputs": []}), "unsupported_signature"),
        *(
            (archive(signature=SIGNATURE | {"inputs": [PORT | change]}), "unsupported_signature")
            for change in (
                {"name": "a b"}, {"name": 1}, {"dtype": "float"}, {"dtype": "BYTES"}, {"shape": [0]}, {"shape": [True]},
                {"shape": [-1]}, {"shape": [2**31]}, {"shape": ["a b"]}, {"shape": 4}, {"shape": [1] * 9}, {"more": 1},
            )
        ),
    ],
)  # fmt: skip
def test_what_is_not_a_script_with_a_signature_is_refused(tmp_path: Path, body: bytes, code: str) -> None:
    """In this process: the reader is our own code, and opens nothing."""
    spec = {
        "path": str(write(tmp_path, body)),
        "scratch": str(tmp_path),
        "total_bytes": 2**30,
        "torchscript": True,
    }
    with pytest.raises(Unprocessable) as error:
        model_child.inspect(spec, lambda message: None)
    assert error.value.code == code
    assert error.value.detail.isprintable()


def test_a_script_without_a_signature_says_what_is_missing(refused: Callable[..., Unprocessable]) -> None:
    error = refused(zipped(SCRIPT))
    assert error.code == "unsafe_format"
    assert "signature.json" in error.detail
