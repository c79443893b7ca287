"""Zip archives by our own walk of the members: nothing is extracted under a name that a user chose.

Everything is decided from the archive's own tables before a byte is unpacked, and held against what really
comes out while unpacking. Refused: `extractall`, links, and any archive with something else than files.
"""

import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.tensors import quoted
from controlplane.registry.intake.walk import CONTROL

MAX_MEMBERS = 10_000
MAX_TABLE_BYTES = 8 * 1024**2
MAX_RATIO = 100
RATIO_FROM_BYTES = 1024**2
"""What is small may be packed as tightly as it likes."""
_PACK_LESS = "If that is meant, pack it without compression (zip -0, numpy.savez)"
MAX_NAME_BYTES = 1024
_CHUNK = 1024**2
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_END_BYTES = 22
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_IGNORED = ("__MACOSX/",)
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class Member:
    name: str
    size_bytes: int
    info: zipfile.ZipInfo


def members(
    archive: zipfile.ZipFile, *, file_bytes: int, total_bytes: int, paths: bool = True
) -> tuple[Member, ...]:
    """The files of the archive, folders left out. Raises Unprocessable `unsafe_archive` naming the member.

    Without `paths` their names are keys that nothing is ever unpacked under, such as the inputs `model/x:0` and `X`
    beside `x` in an npz.
    """
    infos = archive.infolist()
    for info in infos:
        _check_name(info.orig_filename, path=paths)
        _check_kind(info)
    _check_unique(infos, paths=paths)
    _check_places(archive, infos, file_bytes=file_bytes)
    total = sum(info.file_size for info in infos)
    if total > total_bytes:
        raise unsafe(f"It unpacks to {total:,} bytes; at most {total_bytes:,} are allowed")
    if _bursts(total, packed_bytes=file_bytes):
        raise unsafe(f"It unpacks to more than {MAX_RATIO} times its size. {_PACK_LESS}")
    return tuple(
        Member(info.filename, info.file_size, info)
        for info in infos
        if not info.is_dir() and not info.filename.startswith(_IGNORED)
    )


def opened(path: Path) -> zipfile.ZipFile:
    """Opens after a look at the size of the table of members, which `zipfile` reads at once."""
    _check_table(path)
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError) as error:
        raise _broken(str(error)) from error


def _check_table(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _END_BYTES - 65535))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END_BYTES:
        raise Unprocessable(
            "truncated", "The archive is cut off.", "Its table of members is missing. Upload it again."
        )
    count, table_bytes = struct.unpack_from("<HI", tail, at + 10)
    zip64 = count == 0xFFFF or table_bytes == 0xFFFFFFFF
    end64 = tail.rfind(b"PK\x06\x06", 0, at)
    if zip64 and end64 >= 0 and at - end64 >= 56:
        count, table_bytes = struct.unpack_from("<QQ", tail, end64 + 32)
    if count > MAX_MEMBERS or table_bytes > MAX_TABLE_BYTES:
        raise unsafe(f"It has {count:,} members; at most {MAX_MEMBERS:,} are read")


def _check_name(name: str, *, path: bool) -> None:
    parts = name.removesuffix("/").split("/")
    problem = ""
    if len(name.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        problem = "is too long"
    elif CONTROL.search(name):
        problem = "contains control characters"
    elif not path:
        return
    elif "\\" in name or ":" in name:
        problem = "contains a backslash or a colon"
    elif name.startswith("/"):
        problem = "is an absolute path"
    elif any(part in {"", ".", ".."} for part in parts):
        problem = "is not a clean relative path"
    if problem:
        raise unsafe(f"The member {quoted(name.encode('unicode_escape').decode())} {problem}")


def _check_kind(info: zipfile.ZipInfo) -> None:
    what = f"The member {quoted(info.filename)}"
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise unsafe(f"{what} is a link")
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise unsafe(f"{what} is neither a file nor a folder")
    if info.flag_bits & _ENCRYPTED:
        raise unsafe(f"{what} is encrypted")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise unsafe(f"{what} is packed by a method that is not read (only stored and deflated are)")
    if info.is_dir() and info.file_size:
        raise unsafe(f"{what} is a folder with bytes")
    if _bursts(info.file_size, packed_bytes=info.compress_size):
        raise unsafe(f"{what} unpacks to more than {MAX_RATIO} times its packed size. {_PACK_LESS}")
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        raise unsafe(f"{what} declares two sizes")


def _bursts(size_bytes: int, *, packed_bytes: int) -> bool:
    return size_bytes > RATIO_FROM_BYTES and size_bytes > MAX_RATIO * packed_bytes


def _check_unique(infos: Sequence[zipfile.ZipInfo], *, paths: bool) -> None:
    seen: dict[str, str] = {}
    for info in infos:
        key = info.filename
        if paths:
            key = unicodedata.normalize("NFC", key.removesuffix("/")).casefold()
        if key in seen:
            raise unsafe(f"The members {quoted(seen[key])} and {quoted(info.filename)} have the same name")
        seen[key] = info.filename


def _check_places(archive: zipfile.ZipFile, infos: Sequence[zipfile.ZipInfo], *, file_bytes: int) -> None:
    """No two members share bytes, none reaches out of the file, each has the name its own header says."""
    file = archive.fp
    assert file is not None
    end = 0
    for info in sorted(infos, key=lambda each: each.header_offset):
        if info.header_offset < end:
            raise unsafe(f"The member {quoted(info.filename)} overlaps another one")
        end = _end_of(file, info)
        if end > file_bytes:
            raise _broken(f"the member {quoted(info.filename)} ends beyond the file")


def _end_of(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise _broken(f"the member {quoted(info.filename)} has no header")
    *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    return info.header_offset + _LOCAL_HEADER.size + int(name_bytes) + int(extra_bytes) + info.compress_size


def unpack(archive: zipfile.ZipFile, member: Member, target: Path) -> None:
    """Writes the member to `target`, a new file. Raises Unprocessable if it is not what its table declares."""
    written = 0
    try:
        with archive.open(member.info) as source, target.open("xb") as file:
            while chunk := source.read(_CHUNK):
                if not written and chunk.startswith(_ARCHIVES):
                    raise unsafe(f"The member {quoted(member.name)} is itself an archive")
                written += len(chunk)
                if written > member.size_bytes:
                    raise unsafe(f"The member {quoted(member.name)} is larger than it declares")
                file.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _broken(f"the member {quoted(member.name)} cannot be unpacked: {error}") from error
    if written != member.size_bytes:
        raise _broken(f"the member {quoted(member.name)} is shorter than it declares")


def unsafe(problem: str) -> Unprocessable:
    return Unprocessable("unsafe_archive", "The archive is not accepted.", f"{problem}.")


def _broken(problem: str) -> Unprocessable:
    detail = problem.encode("unicode_escape").decode()[:300]
    return Unprocessable(
        "broken_archive", "The archive is damaged.", f"It cannot be read: {detail}. Pack it again."
    )
