"""Zip archives made to escape, to burst or to lie."""

import stat
import struct
import subprocess
import sys
import zipfile

import pytest

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake import inspection
from tests.controlplane.registry.intake import models
from tests.controlplane.registry.intake.models import (
    WEIGHT_BYTES,
    external,
    mlp,
    patched_zip,
    zip_member,
    zipped,
    zipped_infos,
)

MODEL = mlp().SerializeToString()


def beside(name: str, *, mode: int = stat.S_IFREG | 0o644, data: bytes = b"x") -> bytes:
    """A good model with one odd member beside it."""
    return zipped_infos((zip_member("m.onnx"), MODEL), (zip_member(name, mode=mode), data))


def encrypted() -> bytes:
    return patched_zip({"m.onnx": MODEL}, offset=8, value=b"\x01\x00")


def lying_size() -> bytes:
    """The table promises less than comes out."""
    return patched_zip({"m.onnx": MODEL * 4}, offset=24, value=struct.pack("<I", 10))


def bad_checksum() -> bytes:
    return patched_zip({"m.onnx": MODEL}, offset=16, value=b"\x00\x00\x00\x00")


def beyond_the_end() -> bytes:
    return patched_zip({"m.onnx": MODEL}, offset=20, value=struct.pack("<I", 2**30))


def lying_count() -> bytes:
    """The end record says a million members."""
    data = bytearray(zipped({"m.onnx": MODEL}))
    end = data.rfind(b"PK\x05\x06")
    data[end + 8 : end + 16] = struct.pack("<HHI", 60_000, 60_000, 2**31)
    return bytes(data)


UNSAFE = {
    "parent": (beside("../x"), "clean relative path"),
    "parent inside": (beside("a/../../x"), "clean relative path"),
    "bare parent": (beside(".."), "clean relative path"),
    "absolute": (beside("/etc/passwd"), "absolute"),
    "backslash": (beside("..\\x"), "backslash"),
    "drive": (beside("C:x"), "colon"),
    "NUL": (beside("a\0b"), "control characters"),
    "newline": (beside("a\nb"), "control characters"),
    "long name": (beside("a" * 4096), "too long"),
    "dot": (beside("./x"), "clean relative path"),
    "double slash": (beside("a//x"), "clean relative path"),
    "link": (beside("l", mode=stat.S_IFLNK | 0o777, data=b"/etc/passwd"), "link"),
    "device": (beside("d", mode=stat.S_IFCHR | 0o666), "neither a file"),
    "fifo": (beside("f", mode=stat.S_IFIFO | 0o666), "neither a file"),
    "same name in another case": (beside("M.ONNX"), "same name"),
    "encrypted": (encrypted(), "encrypted"),
    "overlapping": (models.overlapping_zip(), "overlaps"),
    "ratio": (zipped({"m.onnx": MODEL, "w": b"\0" * 5_000_000}), "100 times"),
    "ratio of many small ones": (
        zipped({"m.onnx": MODEL} | {f"w{n}": b"\0" * 2**20 for n in range(200)}),
        "100 times its size",
    ),
    "too many members": (zipped({f"{n}": b"" for n in range(10_001)}), "10,001 members"),
    "lying count": (lying_count(), "members"),
    "nested": (zipped({"m.onnx": MODEL, "inner.zip": zipped({"a": b"a"})}), "itself an archive"),
    "nested, other name": (
        zipped({"m.onnx": MODEL, "w.bin": b"\x1f\x8b\x08" + b"\0" * 99}),
        "itself an archive",
    ),
    "unknown method": (zipped({"m.onnx": MODEL}, method=zipfile.ZIP_LZMA), "method"),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_archive_is_refused_with_the_reason(refused, name):
    body, word = UNSAFE[name]
    error = refused(body)
    assert (error.code, word in error.detail) == ("unsafe_archive", True), f"{error.code}: {error.detail}"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(refused):
    error = refused(beside("m.onnx"))
    assert error.code == "unsafe_archive"
    assert "same name" in error.detail


FULL_DISK = """
import subprocess, sys
from pathlib import Path
folder = Path(sys.argv[1])
scratch = folder / "scratch"
scratch.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", scratch], check=True)
from controlplane.core.errors import SlipwayError
from controlplane.registry.intake import Bounds, inspected
bounds = Bounds(memory_bytes=3 * 1024**3, wall_s=60, scratch=scratch)
try:
    with inspected(folder / "upload", bounds=bounds):
        pass
except SlipwayError as error:
    print(error.status, error.code, str(folder) in str(error))
"""


def own_mounts_allowed() -> bool:
    return subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not own_mounts_allowed(), reason="no mount namespace may be made here")
def test_f22_no_room_to_unpack_is_the_operators_to_mend_and_not_the_files_fault(tmp_path):
    models.write(tmp_path, zipped({"m.onnx": MODEL, "w": b"\0" * 4_000_000}, method=zipfile.ZIP_STORED))
    command = ["unshare", "-Urm", sys.executable, "-c", FULL_DISK, str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.stdout == "507 storage_full False\n", answer.stderr


def test_what_went_wrong_in_our_own_code_is_told_to_the_log_only(tmp_path, bounds, caplog):
    path = models.write(tmp_path, MODEL)
    with inspection._scratch(bounds.scratch) as scratch, pytest.raises(Unprocessable) as error:
        inspection._ask("no_such_child", {}, path=path, scratch=scratch, bounds=bounds)
    assert error.value.code == "unreadable"
    assert "Error" not in error.value.detail
    assert "no_such_child" not in error.value.detail
    assert "ModuleNotFoundError" in caplog.text


@pytest.mark.parametrize(
    "body", [lying_size(), bad_checksum(), beyond_the_end(), zipped({"m.onnx": MODEL})[:-5]]
)
def test_an_archive_that_lies_about_its_members_is_refused(refused, body):
    assert refused(body).code in {"broken_archive", "unsafe_archive", "truncated"}


def test_an_archive_that_would_unpack_to_too_much_is_refused_before_unpacking(refused):
    """Declared sizes of the table alone decide."""
    stored = zipped({"m.onnx": MODEL, "w": b"\0" * 100_000_000}, method=zipfile.ZIP_STORED)
    table = bytearray(stored)
    entry = table.rfind(b"PK\x01\x02")
    table[entry + 20 : entry + 28] = struct.pack("<II", 2**31, 2**31)
    assert refused(bytes(table)).code in {"broken_archive", "unsafe_archive"}


@pytest.mark.parametrize(
    "members",
    [
        {"a.onnx": MODEL, "b.onnx": MODEL},
        {"one/two/m.onnx": MODEL},
        {"m.bin": MODEL},
    ],
)
def test_an_archive_needs_exactly_one_model_at_the_top_or_one_folder_deep(refused, members):
    assert refused(zipped(members)).code == "no_single_model"


EXTERNAL = {
    "parent": ({"location": "../w.bin"}, "clean relative path"),
    "bare parent": ({"location": ".."}, "clean relative path"),
    "inner parent": ({"location": "a/../w.bin"}, "clean relative path"),
    "absolute": ({"location": "/etc/passwd"}, "clean relative path"),
    "device": ({"location": "/dev/zero"}, "clean relative path"),
    "URL": ({"location": "https://example.com/w"}, "clean relative path"),
    "backslash": ({"location": "a\\w.bin"}, "clean relative path"),
    "missing": ({"location": "other.bin"}, "not in the archive"),
    "folder": ({"location": "data"}, "not in the archive"),
    "past the end": ({"location": "w.bin", "offset": "48"}, "which has 48"),
    "huge offset": ({"location": "w.bin", "offset": str(2**50)}, "which has 48"),
    "huge length": ({"location": "w.bin", "length": str(2**50)}, "its length is"),
    "short length": ({"location": "w.bin", "length": "47"}, "its length is 47"),
    "negative offset": ({"location": "w.bin", "offset": "-4"}, "-4"),
    "negative length": ({"location": "w.bin", "length": "-48"}, "-48"),
    "no number": ({"location": "w.bin", "offset": "0x10"}, "0x10"),
    "5,000 digits": ({"location": "w.bin", "offset": "9" * 1000}, "offset"),
    "attribute": ({"location": "w.bin", "__class__": "x"}, "__class__"),
    "NUL": ({"location": "w.bin\0.txt"}, "location"),
}


@pytest.mark.parametrize("name", EXTERNAL)
def test_external_data_that_leaves_its_folder_or_its_file_is_refused_naming_the_tensor(refused, name):
    entries, word = EXTERNAL[name]
    body = zipped({"m.onnx": external(**entries).SerializeToString(), "w.bin": WEIGHT_BYTES, "data/x": b"x"})
    error = refused(body)
    assert (error.code, "“w”" in error.detail, word in error.detail) == ("external_data", True, True), (
        error.detail
    )


def test_external_data_whose_location_is_given_twice_is_refused(refused):
    proto = external(location="w.bin")
    entry = proto.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "../other"
    assert "twice" in refused(zipped({"m.onnx": proto.SerializeToString(), "w.bin": WEIGHT_BYTES})).detail


def test_many_tensors_of_the_same_bytes_cannot_grow_beyond_one_file(refused):
    proto = external(location="w.bin")
    weight = proto.graph.initializer[0]
    del weight.dims[:]
    weight.dims.extend([1024, 1024])
    for number in range(1000):
        copy = proto.graph.initializer.add()
        copy.CopyFrom(weight)
        copy.name = f"w{number}"
    archive = zipped(
        {"m.onnx": proto.SerializeToString(), "w.bin": bytes(range(256)) * 16384}, method=zipfile.ZIP_STORED
    )
    assert refused(archive).code == "too_large_for_one_file"
