"""Uploads and stored bytes: what is kept, what is not, and what happens to it at every wrong moment."""

import errno
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from django.db import connection

from controlplane.accounts.models import AuditEvent
from controlplane.core import storage
from controlplane.core.errors import Conflict, InvalidInput, NotFound, StorageFull, TooLarge, Unprocessable
from controlplane.registry import artifacts, intake, services
from controlplane.registry.models import Artifact, Model, Variant, Version
from tests import factories
from tests.controlplane.registry.intake import torch_files
from tests.controlplane.registry.intake.models import external, zipped
from tests.controlplane.registry.people import coming_in, stored

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("storage_of_its_own")]


def digest(body: bytes) -> str:
    return sha256(body).hexdigest()


def nothing_is_kept(model: Model | None = None) -> bool:
    rows = Version.objects.filter(model=model) if model else Version.objects.all()
    return not rows.exists() and not Artifact.objects.exists() and not coming_in()


def age(path: Path, seconds: float = 7200) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_an_upload_is_a_version_with_the_variant_of_its_own_bytes(three, onnx):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    body = onnx()
    version, created = services.upload_version(owner.actor, model, chunks=[body[:9], body[9:]])
    assert created
    assert (version.number, version.source_sha256, version.source_bytes) == (1, digest(body), len(body))
    variant = version.variants.get()
    assert (variant.number, variant.artifact.sha256, variant.precision) == (0, digest(body), "fp32")
    assert stored(digest(body)).read_bytes() == body
    assert not coming_in()


def test_a_program_is_kept_as_what_was_made_of_it_and_the_same_bytes_are_still_known(three):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    body = torch_files.program()
    version, _ = services.upload_version(owner.actor, model, chunks=[body], filename="score.pt2")
    variant = version.variants.get()
    assert (version.format, variant.format, version.source_sha256) == ("torch", "torch", digest(body))
    assert variant.artifact.sha256 != digest(body)
    assert stored(variant.artifact.sha256).read_bytes().startswith(b"PK")
    assert services.upload_version(owner.actor, model, chunks=[body]) == (version, False)


def test_the_same_bytes_again_are_the_version_that_they_are(three, onnx):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    first, _ = services.upload_version(owner.actor, model, chunks=[onnx()])
    again, created = services.upload_version(owner.actor, model, chunks=[onnx()])
    assert (again, created) == (first, False)
    assert not coming_in()


def test_numbers_are_never_used_again(three, onnx):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    first, _ = services.upload_version(owner.actor, model, chunks=[onnx(1)])
    services.delete_version(owner.actor, first)
    second, _ = services.upload_version(owner.actor, model, chunks=[onnx(1)])
    assert second.number == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", "empty_file"), (b"\x7fELF" + bytes(200), "not_onnx"), (b"<html>" + bytes(200), "not_onnx")],
)
def test_what_the_scan_refuses_leaves_nothing(three, body, code):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    with pytest.raises(Unprocessable) as error:
        services.upload_version(owner.actor, model, chunks=[body])
    assert error.value.code == code
    assert nothing_is_kept(model)
    assert not stored(digest(body)).exists()


def test_a_model_with_a_refused_first_version_is_not_registered(three):
    owner, _, _ = three
    with pytest.raises(Unprocessable):
        services.register_with_version(owner.actor, name="fraud", chunks=[b"\x7fELF" + bytes(200)])
    assert not Model.objects.filter(name="fraud").exists()
    assert nothing_is_kept()


def test_a_taken_name_is_refused_before_a_byte_is_read(three):
    owner, _, _ = three
    factories.model(owner.actor.team, name="fraud")

    def unread() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    with pytest.raises(Conflict) as error:
        services.register_with_version(owner.actor, name="fraud", chunks=unread())
    assert error.value.fields == {"name": ["This name is taken in your team."]}


def test_wrong_length_and_digest_and_size_leave_nothing(three, onnx, settings):
    owner, _, _ = three
    model = factories.model(owner.actor.team)

    def upload(**expected: Any) -> None:
        services.upload_version(owner.actor, model, chunks=[onnx()], **expected)

    with pytest.raises(InvalidInput, match="ended early"):
        upload(expected_bytes=10_000)
    with pytest.raises(InvalidInput, match="longer than announced"):
        upload(expected_bytes=3)
    with pytest.raises(Unprocessable, match="not the ones announced"):
        upload(expected_sha256="0" * 64)
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, max_upload_bytes=100)
    with pytest.raises(TooLarge):
        upload()
    assert nothing_is_kept(model)


def test_a_client_that_breaks_off_leaves_nothing(three, onnx):
    owner, _, _ = three
    model = factories.model(owner.actor.team)

    def broken() -> Iterator[bytes]:
        yield onnx()[:20]
        raise OSError("connection reset")

    with pytest.raises(OSError, match="connection reset"):
        services.upload_version(owner.actor, model, chunks=broken())
    assert nothing_is_kept(model)


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/passwd", "C:\\models\\x", ".x", "a\r\nSet-Cookie: b", "x" * 4096]
)
def test_d4_what_a_client_calls_the_file_names_nothing(three, onnx, name):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    version, _ = services.upload_version(owner.actor, model, chunks=[onnx()], filename=name)
    version.refresh_from_db()
    assert "/" not in version.source_filename
    assert "\\" not in version.source_filename
    assert version.source_filename.isprintable()
    assert len(version.source_filename) <= 255
    assert stored(version.artifact.sha256).is_file()


@pytest.mark.django_db(transaction=True)
def test_d23_twenty_clients_with_the_same_bytes_make_one_version_and_one_object(three, onnx):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    together = threading.Barrier(20, timeout=60)

    def upload(_: int) -> tuple[int, bool]:
        try:
            together.wait()
            version, created = services.upload_version(owner.actor, model, chunks=[onnx()])
            return version.number, created
        finally:
            connection.close()

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(upload, range(20)))
    assert {number for number, _ in results} == {1}
    assert sum(created for _, created in results) == 1
    assert Artifact.objects.count() == 1
    assert stored(digest(onnx())).is_file()
    assert not coming_in()


@pytest.mark.django_db(transaction=True)
def test_a_refusal_does_not_take_the_bytes_from_somebody_who_registers_the_same(three, npz, monkeypatch):
    """Two teams send one npz at once; it fits the model of the first only."""
    owner, _, stranger = three
    fitting = factories.version(factories.model(owner.actor.team))
    wrong = factories.version(
        factories.model(stranger.actor.team),
        signature=factories.SIGNATURE | {"inputs": [{"name": "z", "dtype": "FP32", "shape": ["batch", 4]}]},
    )
    inspected, refused = threading.Event(), threading.Event()
    look = intake.inspected_dataset

    @contextmanager
    def wait_for_the_refusal(path: Path, **asked: Any) -> Any:
        with look(path, **asked) as found:
            inspected.set()
            assert refused.wait(60)
            yield found

    monkeypatch.setattr(services.intake, "inspected_dataset", wait_for_the_refusal)

    def add() -> None:
        try:
            services.add_dataset(
                owner.actor, fitting.model, name="held", role="evaluation", version=fitting, chunks=[npz()]
            )
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(add)
        assert inspected.wait(60)
        monkeypatch.setattr(services.intake, "inspected_dataset", look)
        with pytest.raises(Unprocessable):
            services.add_dataset(
                stranger.actor, wrong.model, name="held", role="evaluation", version=wrong, chunks=[npz()]
            )
        refused.set()
        adding.result()
    assert stored(digest(npz())).is_file()
    assert Artifact.objects.filter(sha256=digest(npz())).exists()


def test_f22_a_full_disk_is_said_and_nothing_is_kept(three, onnx, monkeypatch):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    with monkeypatch.context() as full:
        full.setattr(storage.os, "fsync", _no_space)
        with pytest.raises(StorageFull) as error:
            services.upload_version(owner.actor, model, chunks=[onnx()])
    assert error.value.status == 507
    assert "make room" in error.value.detail
    assert nothing_is_kept(model)
    _, created = services.upload_version(owner.actor, model, chunks=[onnx()])
    assert created, "it recovers when there is room again"


def _no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_f23_damaged_bytes_are_refused_at_the_next_use_and_marked_and_the_same_bytes_mend_them(
    three, onnx, registered, damage
):
    owner, _, _ = three
    model, version = registered(owner.actor)
    variant = version.variants.get()
    file = stored(version.artifact.sha256)
    file.chmod(0o644)
    if damage == "flipped":
        body = bytearray(file.read_bytes())
        body[len(body) // 2] ^= 1
        file.write_bytes(body)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    with pytest.raises(Conflict) as error:
        artifacts.intact(variant)
    assert error.value.code == "integrity"
    version.artifact.refresh_from_db()
    assert version.artifact.state == Artifact.State.DAMAGED
    variant.refresh_from_db()
    with pytest.raises(Conflict):
        services.move_alias(owner.actor, model, name="champion", variant=variant)

    mended, created = services.upload_version(owner.actor, model, chunks=[onnx()])
    assert (mended.pk, created) == (version.pk, False)
    assert artifacts.intact(Variant.objects.get(pk=variant.pk)).read_bytes() == onnx()
    trail = list(AuditEvent.objects.order_by("id").values_list("verb", "user", "object_name"))[-2:]
    assert trail == [
        ("found damaged bytes of", None, model.name),
        ("mended the bytes of", owner.actor.user.pk, model.name),
    ]


class Crashed(BaseException):
    """The process is gone: nothing in between may clean up on purpose."""


def test_f24_a_crash_between_object_and_row_leaves_garbage_that_is_collected(three, onnx, monkeypatch):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    with monkeypatch.context() as crash:
        crash.setattr(artifacts, "row_of", _crash)
        with pytest.raises(Crashed):
            services.upload_version(owner.actor, model, chunks=[onnx()])
    left = stored(digest(onnx()))
    assert left.is_file()
    assert not Version.objects.exists()
    artifacts.collect_garbage()
    assert left.is_file(), "it may be about to get its row"
    age(left)
    artifacts.collect_garbage()
    assert not left.exists()


def test_f24_a_crash_before_the_object_leaves_no_row(three, onnx, monkeypatch):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    with monkeypatch.context() as crash:
        crash.setattr(storage, "_publish", _crash)
        with pytest.raises(Crashed):
            services.upload_version(owner.actor, model, chunks=[onnx()])
    assert not Version.objects.exists()
    assert not Artifact.objects.exists()
    _, created = services.upload_version(owner.actor, model, chunks=[onnx()])
    assert created


@pytest.mark.django_db(transaction=True)
def test_f24_a_crash_before_the_commit_leaves_no_dangling_row(three, onnx, monkeypatch):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    with monkeypatch.context() as crash:
        crash.setattr(services, "_audit", _crash)
        with pytest.raises(Crashed):
            services.upload_version(owner.actor, model, chunks=[onnx()])
    assert not Version.objects.exists()
    assert not Artifact.objects.exists()
    assert Model.objects.get(pk=model.pk).version_count == 0


def _crash(*_: Any, **__: Any) -> None:
    raise Crashed


def test_garbage_is_what_no_row_uses_and_what_killed_uploads_left(three, registered, storage_of_its_own):
    owner, _, _ = three
    _, kept = registered(owner.actor)
    unused = storage.put([b"nobody's"], limit_bytes=100)
    Artifact.objects.create(sha256=unused.sha256, size_bytes=8)
    forms = Path(settings.FILE_UPLOAD_TEMP_DIR)
    left = [storage_of_its_own / "incoming" / "tmpabc", forms / "tmpxyz.upload.onnx", forms / "tmp1.upload"]
    for file in left:
        file.write_bytes(b"half")
        age(file)
    look, going_on = (intake.scratch_root() / f"intake-{name}" for name in ("killed", "going-on"))
    for folder in (look, going_on):
        (folder / "unpacked").mkdir(parents=True)
    age(look)
    young = forms / "tmpyoung.upload"
    young.write_bytes(b"still coming")
    age(stored(unused.sha256))
    age(stored(kept.artifact.sha256))
    assert artifacts.collect_garbage() == 1
    assert not stored(unused.sha256).exists()
    assert not any(file.exists() for file in left)
    assert young.is_file()
    assert not look.exists()
    assert going_on.is_dir()
    shutil.rmtree(going_on)
    assert stored(kept.artifact.sha256).is_file()


def test_bytes_shared_by_two_models_outlive_the_deletion_of_one(three, onnx, registered):
    owner, _, stranger = three
    _, mine = registered(owner.actor)
    _, theirs = registered(stranger.actor)
    assert mine.artifact == theirs.artifact
    services.delete_version(owner.actor, mine)
    age(stored(digest(onnx())))
    artifacts.collect_garbage()
    assert artifacts.intact(theirs.variants.get()).read_bytes() == onnx()


def test_a_model_deleted_while_its_version_arrives_is_not_found(three, onnx):
    owner, _, _ = three
    model = factories.model(owner.actor.team)

    def meanwhile() -> Iterator[bytes]:
        yield onnx()
        Model.objects.filter(pk=model.pk).delete()

    with pytest.raises(NotFound):
        services.upload_version(owner.actor, model, chunks=meanwhile())


def test_an_archive_is_kept_as_the_one_file_made_of_it(three, storage_of_its_own):
    owner, _, _ = three
    model = factories.model(owner.actor.team)
    weights = np.arange(12, dtype=np.float32).tobytes()
    body = zipped({"model.onnx": external(location="w.bin").SerializeToString(), "w.bin": weights})
    version, _ = services.upload_version(owner.actor, model, chunks=[body], filename="model.zip")
    assert version.source_sha256 == digest(body)
    assert version.artifact.sha256 != digest(body)
    assert not stored(digest(body)).exists()
    again, created = services.upload_version(owner.actor, model, chunks=[body])
    assert (again.pk, created) == (version.pk, False)
