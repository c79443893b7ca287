"""What the artifact storage promises about bytes, full disks and crashes."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.core import storage
from controlplane.core.errors import Integrity, InvalidInput, NotFound, TooLarge, Unprocessable

BODY = b"weights" * 1000
DIGEST = hashlib.sha256(BODY).hexdigest()
LIMIT = 10 * 1024**2


@pytest.fixture(autouse=True)
def root(tmp_path: Path, settings) -> Path:
    location = tmp_path / "artifacts"
    backend = "django.core.files.storage.FileSystemStorage"
    settings.STORAGES = settings.STORAGES | {
        "artifacts": {"BACKEND": backend, "OPTIONS": {"location": location}}
    }
    return location


def put(body: bytes = BODY, **options) -> storage.Blob:
    return storage.put([body[:100], body[100:]], **{"limit_bytes": LIMIT} | options)


def objects(root: Path) -> list[str]:
    return [path.parent.name + path.name for path in (root / "sha256").rglob("*") if path.is_file()]


def nothing_kept(root: Path) -> bool:
    return not [path for path in root.rglob("*") if path.is_file() and path.name != ".lock"]


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_bytes_are_stored_under_their_digest_and_read_back(root):
    blob = put(expected_sha256=DIGEST, expected_bytes=len(BODY))
    assert blob == storage.Blob(sha256=DIGEST, size_bytes=len(BODY))
    with storage.open(DIGEST) as file:
        assert file.read() == BODY
    assert storage.path(DIGEST, verify=True).read_bytes() == BODY
    assert storage.path(DIGEST).relative_to(root) == Path("sha256", DIGEST[:2], DIGEST[2:])
    assert storage.exists(DIGEST)
    assert storage.size_bytes(DIGEST) == len(BODY)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.binary(max_size=2000), max_size=8))
def test_any_way_of_cutting_a_body_gives_the_digest_of_the_whole(root, chunks):
    blob = storage.put(chunks, limit_bytes=LIMIT)
    assert blob.sha256 == hashlib.sha256(b"".join(chunks)).hexdigest()
    assert storage.path(blob.sha256).read_bytes() == b"".join(chunks)


def test_a_local_file_is_copied(root, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(BODY)
    assert storage.put_file(file).sha256 == DIGEST
    assert file.read_bytes() == BODY


def test_a_body_above_the_limit_is_refused_declared_or_not_and_nothing_is_kept(root):
    for options in ({}, {"expected_bytes": len(BODY)}):
        with pytest.raises(TooLarge) as refused:
            put(limit_bytes=1000, **options)
        assert refused.value.code == "upload_too_large"
        assert "1,000 bytes" in refused.value.detail
    assert nothing_kept(root)


@pytest.mark.parametrize(("announced", "code"), [(len(BODY) + 1, "short_body"), (len(BODY) - 1, "long_body")])
def test_a_body_of_another_length_than_announced_is_refused(root, announced, code):
    with pytest.raises(InvalidInput) as refused:
        put(expected_bytes=announced)
    assert refused.value.code == code
    assert nothing_kept(root)


def test_other_bytes_than_announced_are_refused(root):
    with pytest.raises(Unprocessable) as refused:
        put(expected_sha256="0" * 64)
    assert refused.value.code == "digest_mismatch"
    assert nothing_kept(root)


@pytest.mark.parametrize("digest", [hashlib.md5(BODY).hexdigest(), DIGEST.upper(), "../" + DIGEST[3:], ""])
def test_a_digest_that_is_no_sha256_is_refused(root, digest):
    with pytest.raises(InvalidInput) as refused:
        put(expected_sha256=digest)
    assert refused.value.code == "invalid_digest"
    assert nothing_kept(root)


def test_an_upload_that_breaks_off_leaves_nothing(root):
    def broken() -> Iterator[bytes]:
        yield BODY
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        storage.put(broken(), limit_bytes=LIMIT)
    assert nothing_kept(root)


def test_twenty_clients_with_the_same_bytes_at_once_make_one_object(root):
    gate = threading.Barrier(20)

    def upload(_: int) -> storage.Blob:
        gate.wait()
        return put()

    with ThreadPoolExecutor(20) as pool:
        blobs = set(pool.map(upload, range(20)))
    assert blobs == {storage.Blob(sha256=DIGEST, size_bytes=len(BODY))}
    assert objects(root) == [DIGEST]
    assert not list((root / "incoming").iterdir())


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_f23_damaged_bytes_are_found_when_they_are_used(root, damage):
    put()
    file = storage.path(DIGEST)
    file.chmod(0o644)
    match damage:
        case "flip":
            file.write_bytes(b"W" + BODY[1:])
        case "truncate":
            file.write_bytes(BODY[:-1])
        case "remove":
            file.unlink()
    with pytest.raises(Integrity) as found:
        storage.verify(DIGEST)
    assert found.value.code == "integrity"
    assert found.value.extra == {"sha256": DIGEST}
    put()
    storage.verify(DIGEST)


@pytest.mark.parametrize("name", ["0" * 64, "..", "../../etc/passwd", "", "ab/cd", DIGEST + "\n"])
def test_what_is_not_stored_is_not_found_whatever_the_name(root, name):
    for read in (storage.open, storage.path, storage.size_bytes):
        with pytest.raises(NotFound):
            read(name)
    assert not storage.exists(name)


def test_deleting_twice_is_deleting_once(root):
    put()
    storage.delete(DIGEST)
    storage.delete(DIGEST)
    assert not storage.exists(DIGEST)


def test_f24_sweep_removes_what_nothing_refers_to_once_it_is_old(root):
    kept, garbage, young = (put(body).sha256 for body in (b"kept", b"garbage", b"young"))
    left = root / "incoming" / "tmpleft"
    left.write_bytes(b"half")
    for path in (storage.path(kept), storage.path(garbage), left):
        age(path, 7200)
    swept = storage.sweep(keep={kept}, older_than_s=3600)
    assert swept == storage.Swept(temporary=1, objects=1, size_bytes=len(b"garbage"))
    assert sorted(objects(root)) == sorted([kept, young])
    assert not left.exists()


def test_old_garbage_that_is_uploaded_again_survives_the_sweep_until_it_has_its_row(root):
    put()
    age(storage.path(DIGEST), 7200)
    put()
    assert storage.sweep(keep=set(), older_than_s=3600).objects == 0
    assert storage.exists(DIGEST)


KILLED_UPLOAD = """
import sys, time, django
from django.conf import settings
backend = "django.core.files.storage.FileSystemStorage"
settings.configure(STORAGES={"artifacts": {"BACKEND": backend, "OPTIONS": {"location": sys.argv[1]}}})
from controlplane.core import storage
def body():
    yield b"x" * 5_000_000
    print("half", flush=True)
    time.sleep(60)
storage.put(body(), limit_bytes=10_000_000)
"""


def test_f20_a_process_killed_in_mid_upload_leaves_only_a_file_that_sweep_collects(root):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_UPLOAD, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    left = list((root / "incoming").iterdir())
    assert len(left) == 1
    assert not (root / "sha256").exists()
    age(left[0], 7200)
    assert storage.sweep(keep=set(), older_than_s=3600).temporary == 1
    assert nothing_kept(root)


FULL_DISK = """
import sys, subprocess
root = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", root], check=True)
from django.conf import settings
backend = "django.core.files.storage.FileSystemStorage"
settings.configure(STORAGES={"artifacts": {"BACKEND": backend, "OPTIONS": {"location": root}}})
from controlplane.core import storage
from controlplane.core.errors import StorageFull
from pathlib import Path
chunks = [b"x" * 500_000] * 8
for expected in (None, 4_000_000):
    try:
        storage.put(chunks, limit_bytes=10**9, expected_bytes=expected)
    except StorageFull as error:
        print(error.status, error.code)
print(sum(path.is_file() and path.name != ".lock" for path in Path(root).rglob("*")))
print(storage.put(chunks[:1], limit_bytes=10**9).size_bytes)
"""


def own_mounts_allowed() -> bool:
    return subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not own_mounts_allowed(), reason="no mount namespace may be made here")
def test_f22_a_full_disk_is_said_nothing_is_kept_and_it_recovers(root):
    root.mkdir()
    answer = subprocess.run(
        ["unshare", "-Urm", sys.executable, "-c", FULL_DISK, str(root)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.split("\n")[:4] == ["507 storage_full", "507 storage_full", "0", "500000"]
