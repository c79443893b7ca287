"""An IR in one file: the same bytes for the same IR, and nothing but an IR comes out."""

import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.core.openvino_ir import NotAnArchive, pack, unpack

XML = b"<?xml version='1.0'?>"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(), st.binary())
def test_what_is_packed_comes_out_again_and_has_one_form(
    tmp_path: Path, graph: bytes, weights: bytes
) -> None:
    for name in ("a", "b"):
        pack(XML + graph, weights, tmp_path / name)
    assert unpack(tmp_path / "a") == (XML + graph, weights)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(), st.integers(min_value=0))
def test_a_damaged_file_is_refused_or_whole(tmp_path: Path, junk: bytes, at: int) -> None:
    pack(XML, b"weights", tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "b").write_bytes(whole[: at % len(whole)] + junk)
    with suppress(NotAnArchive):
        assert unpack(tmp_path / "b") == (XML, b"weights")


@pytest.mark.parametrize(
    ("members", "compression", "says"),
    [
        ({"model.xml": XML}, zipfile.ZIP_STORED, "does not hold model.xml and model.bin"),
        ({"model.xml": XML, "model.bin": b"", "../x": b""}, zipfile.ZIP_STORED, "and nothing else"),
        ({"model.xml": XML, "model.bin": bytes(10**6)}, zipfile.ZIP_DEFLATED, "compressed"),
        ({"model.xml": b"\x08\x08", "model.bin": b""}, zipfile.ZIP_STORED, "is not XML"),
    ],
)
def test_another_archive_is_refused_with_what_is_wrong(
    tmp_path: Path, members: dict[str, bytes], compression: int, says: str
) -> None:
    with zipfile.ZipFile(tmp_path / "a", "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(NotAnArchive, match=says):
        unpack(tmp_path / "a")
