"""Files that are not ONNX models: each is told what it is."""

import io
import tarfile
import zipfile

import numpy as np
import pytest

from tests.controlplane.registry.intake import models
from tests.controlplane.registry.intake.models import npz, pickled, zipped


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.onnx"), io.BytesIO())
    return buffer.getvalue()


SAFETENSORS = (
    (60).to_bytes(8, "little") + b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}      ' + b"\0" * 4
)

OTHER_FILES = {
    "elf": (b"\x7fELF\x02\x01\x01" + b"\0" * 100, "not_onnx", "ELF"),
    "exe": (b"MZ\x90\0" + b"\0" * 100, "not_onnx", "Windows"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "not_onnx", "web page"),
    "html-bom": (b"\xef\xbb\xbf\n <html>", "not_onnx", "web page"),
    "openvino": (b'<?xml version="1.0"?><net name="m"></net>', "not_onnx", "XML"),
    "png": (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "not_onnx", "PNG"),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 100, "not_onnx", "gzip"),
    "tar": (tar(), "not_onnx", "tar"),
    "npy": (models.npy("{}"), "not_onnx", "NumPy"),
    "npz": (npz(x=np.zeros(3)), "not_onnx", "npz"),
    "safetensors": (SAFETENSORS, "not_onnx", "safetensors"),
    "gguf": (b"GGUF\x03\0\0\0" + b"\0" * 40, "not_onnx", "GGUF"),
    "text": (b"This is the model that you asked for, have fun with it.\n", "not_onnx", "text"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "not_onnx", "Git LFS"),
    "pickle-2": (pickled(2), "unsafe_format", "pickle"),
    "pickle-5": (pickled(5), "unsafe_format", "pickle"),
    "pickle-0": (pickled(0), "unsafe_format", "pickle"),
    "pickle-text": (b"cposix\nsystem\n(S'true'\ntR.", "unsafe_format", "pickle"),
    "torch-legacy": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + pickled(2), "unsafe_format", "pickle"),
    "torch": (zipped({"archive/data.pkl": pickled(2), "archive/version": b"3"}), "unsafe_format", "PyTorch"),
    "torchscript": (zipped({"m/constants.pkl": b"", "m/code/x.py": b""}), "unsafe_format", "PyTorch"),
    "pt2": (zipped({"m/archive_format": b"pt2", "m/models/model.json": b"{}"}), "bad_program", "PyTorch"),
    "keras": (zipped({"config.json": b"{}", "model.weights.h5": b"\x89HDF"}), "unsafe_format", "Keras"),
    "saved-model": (zipped({"m/saved_model.pb": b"\x08\x01"}), "unsafe_format", "SavedModel"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "unsafe_format", "Keras"),
    "engine": (b"ftrt" + b"\0" * 100, "engine_refused", "TensorRT"),
    "engine-rtx": (b"vtrt" + b"\0" * 100, "engine_refused", "TensorRT"),
    "engine-old": (b"ptrt" + b"\0" * 100, "engine_refused", "TensorRT"),
    "ort": (b"\x18\0\0\0ORTM" + b"\0" * 100, "not_onnx", "ONNX Runtime"),
    "tflite": (b"\x1c\0\0\0TFL3" + b"\0" * 100, "not_onnx", "TensorFlow Lite"),
    "empty": (b"", "empty_file", "0 bytes"),
    "random": (bytes(np.random.default_rng(7).integers(0, 256, 4096, dtype=np.uint8)), "not_onnx", ""),
    "zeros": (b"\0" * 4096, "not_onnx", ""),
    "other-zip": (zipped({"readme.txt": b"hello"}), "no_single_model", "none"),
    "empty-zip": (zipped({}), "no_single_model", "none"),
    "half-zip": (zipped({"m.onnx": b"x" * 100})[:80], "truncated", "table"),
    "nested-onnx-zip": (zipped({"m.onnx": zipped({"m.onnx": b""})}), "unsafe_archive", "archive"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_what_is_not_onnx_is_refused_and_called_by_its_name(refused, name):
    body, code, word = OTHER_FILES[name]
    error = refused(body)
    assert error.code == code
    assert word in error.detail


def test_a_pickle_is_never_loaded(refused, capfd):
    refused(pickled(4))
    refused(zipped({"archive/data.pkl": pickled(4)}))
    assert "unpickled" not in capfd.readouterr().out


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
def test_a_model_that_is_cut_off_is_told_so(refused, share):
    body = models.mlp(weights=np.ones((64, 64), dtype=np.float32)).SerializeToString()
    error = refused(body[: max(2, int(len(body) * share))])
    assert error.code in {"truncated", "not_onnx"}
    assert share < 0.1 or error.code == "truncated"


def test_a_file_of_4_gib_of_nothing_is_refused_before_it_is_read(refused, tmp_path):
    path = tmp_path / "upload"
    with path.open("wb") as file:
        file.write(models.mlp().SerializeToString())
        file.truncate(4 * 1024**3)
    from controlplane.core.errors import Unprocessable
    from controlplane.registry.intake import Bounds, inspected

    bounds = Bounds(memory_bytes=1024**3, wall_s=60, scratch=tmp_path / "scratch")
    with pytest.raises(Unprocessable) as error, inspected(path, bounds=bounds):
        pass
    assert error.value.code == "too_large_for_one_file"


def test_a_zip_with_a_stored_model_alone_is_that_model(look):
    body = models.mlp().SerializeToString()
    found = look(zipped({"model.onnx": body}, method=zipfile.ZIP_STORED))
    assert found["repacked"]
    assert found["kept"] == body
