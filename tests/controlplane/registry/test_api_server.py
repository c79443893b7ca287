"""Uploads through a real web process: what only a socket can show.

The server is the one of the process table, on the test's database; bodies are written by hand, so that they can
be cut, stall or never end.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from django.db import connection

from controlplane.registry import artifacts
from controlplane.registry.models import Artifact, Version
from controlplane.settings.environment import REPOSITORY
from tests import factories
from tests.controlplane.registry import people
from tests.controlplane.registry.people import Person

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]

LIMIT = 200_000
PATIENCE_S = 60


@dataclass(frozen=True, kw_only=True)
class Server:
    port: int
    process: subprocess.Popen[bytes]
    home: Path

    def open(self, person: Person, path: str, *headers: str, method: str = "PUT") -> socket.socket:
        """A connection whose request head is sent."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        head = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *headers]
        head += [f"Authorization: Bearer {person.token}", "Connection: close", "", ""]
        made.sendall("\r\n".join(head).encode())
        return made

    def kill(self) -> None:
        """Workers and their parent, as a power cut would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    @property
    def coming_in(self) -> list[Path]:
        folders = (self.home / "artifacts" / "incoming", self.home / "uploads")
        return [file for folder in folders if folder.is_dir() for file in folder.iterdir()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def eventually(true: Callable[[], bool], *, what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.05)


@contextmanager
def serving(home: Path) -> Iterator[Server]:
    """The table's web process with a home of its own."""
    port, database = free_port(), connection.settings_dict["NAME"]
    url = os.environ["DATABASE_URL"]
    tail = url.partition("?")[2]
    mine = {
        "SLIPWAY_HOME": str(home),
        "SLIPWAY_MAX_UPLOAD_BYTES": str(LIMIT),
        "DATABASE_URL": f"{url.partition('?')[0].rpartition('/')[0]}/{database}?{tail}",
    }
    command = [sys.executable, "-m", "granian", "--interface", "wsgi", "controlplane.wsgi:application"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--http", "1", "--no-ws", "--log-level", "error"]
    process = subprocess.Popen(
        [*command, "--workers", "1", "--blocking-threads", "4"],
        cwd=REPOSITORY,
        env=os.environ | mine,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = Server(port=port, process=process, home=home)
    try:
        eventually(lambda: answers(port), what="the server")
        yield server
    finally:
        if process.poll() is None:
            server.kill()


@pytest.fixture
def home(tmp_path: Path, settings) -> Path:  # type: ignore[no-untyped-def]
    """Where the server keeps its objects, also for the code of the test."""
    settings.STORAGES = settings.STORAGES | {
        "artifacts": settings.STORAGES["artifacts"] | {"OPTIONS": {"location": tmp_path / "artifacts"}}
    }
    settings.FILE_UPLOAD_TEMP_DIR = tmp_path / "uploads"
    return tmp_path


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    with serving(home) as started:
        yield started


@pytest.fixture
def owner() -> Person:
    return people.person(factories.member(factories.team()))


@pytest.fixture
def address(owner: Person) -> str:
    model = factories.model(owner.actor.team, name="fraud")
    return f"/api/v1/models/{model.name}/versions/upload/"


OCTETS = "Content-Type: application/octet-stream"
CHUNKED = "Transfer-Encoding: chunked"


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def answer(connection: socket.socket) -> tuple[int, dict[str, object]]:
    """Status and document, once the server has said all."""
    received = b""
    with connection:
        try:
            while part := connection.recv(65536):
                received += part
        except ConnectionError:
            assert received, "the connection was cut without an answer"
    head, _, body = received.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        body = body.partition(b"\r\n")[2].rpartition(b"\r\n0\r\n")[0]
    return int(head.split()[1]), json.loads(body) if body else {}


def nothing_is_visible() -> bool:
    return not Version.objects.exists() and not Artifact.objects.exists()


@pytest.mark.parametrize("what", ["versions/upload", "datasets/images"])
def test_d2_a_body_that_says_neither_length_nor_digest_is_refused_unread(server, owner, address, what):
    """The answer comes while the body has not begun: nothing could tell its end from a cut."""
    sending = server.open(owner, f"/api/v1/models/fraud/{what}/", OCTETS, CHUNKED)
    status, document = answer(sending)
    assert (status, document["code"]) == (411, "length_required")
    assert "X-Content-SHA256" in str(document["detail"])
    assert not server.coming_in


def test_a_body_without_an_announced_length_is_registered_by_its_digest(server, owner, address, onnx):
    body = onnx()
    sending = server.open(owner, address, OCTETS, CHUNKED, f"X-Content-SHA256: {sha256(body).hexdigest()}")
    sending.sendall(chunk(body[:50]) + chunk(body[50:]) + b"0\r\n\r\n")
    status, document = answer(sending)
    assert (status, document["size_bytes"]) == (201, len(body))
    assert not server.coming_in


def test_d1_a_body_over_the_limit_is_refused_while_it_comes_undeclared(server, owner, address):
    sending = server.open(owner, address, OCTETS, CHUNKED, f"X-Content-SHA256: {'0' * 64}")
    part = chunk(bytes(10_000))
    try:
        for _ in range(10 * LIMIT // 10_000):
            sending.sendall(part)
    except ConnectionError:
        pass  # the server need not hear the rest
    status, document = answer(sending)
    assert (status, document["code"]) == (413, "upload_too_large")
    assert nothing_is_visible()
    assert not server.coming_in


def test_d1_a_body_over_the_limit_is_refused_unread_when_declared(server, owner, address):
    sending = server.open(owner, address, OCTETS, f"Content-Length: {LIMIT + 1}")
    status, document = answer(sending)
    assert (status, document["code"]) == (413, "upload_too_large")


def test_b13_a_form_over_the_limit_is_refused_before_it_is_on_the_disk(server, owner):
    factories.model(owner.actor.team, name="fraud")
    length = f"Content-Length: {LIMIT + 2 * 1024**2}"
    kind = "Content-Type: multipart/form-data; boundary=x"
    sending = server.open(owner, "/api/v1/models/fraud/versions/", kind, length, method="POST")
    sending.sendall(b'--x\r\nContent-Disposition: form-data; name="file"; filename="m"\r\n\r\n' + bytes(5000))
    status, document = answer(sending)
    assert (status, document["code"]) == (413, "upload_too_large")
    assert not server.coming_in


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_d2_an_upload_that_breaks_off_leaves_nothing_visible(server, owner, address, onnx, framing):
    body = onnx()
    if framing == "length":
        sending = server.open(owner, address, OCTETS, f"Content-Length: {len(body)}")
        sending.sendall(body[:-3])
    else:
        sending = server.open(
            owner, address, OCTETS, CHUNKED, f"X-Content-SHA256: {sha256(body).hexdigest()}"
        )
        sending.sendall(chunk(body[:-3]))
    eventually(lambda: bool(server.coming_in), what="the first bytes on the disk")
    sending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sending.close()
    eventually(lambda: not server.coming_in, what="the server to drop what had come")
    assert nothing_is_visible()
    again = server.open(owner, address, OCTETS, f"Content-Length: {len(body)}")
    again.sendall(body)
    assert answer(again)[0] == 201


def test_d2_with_a_digest_a_chunked_body_without_its_end_is_known_to_be_cut(server, owner, address, onnx):
    """The server reports the cut as an end. What is missing may be so little that a model remains."""
    whole = onnx()
    digest = sha256(whole + b"its last field").hexdigest()
    sending = server.open(owner, address, OCTETS, CHUNKED, f"X-Content-SHA256: {digest}")
    sending.sendall(chunk(whole))
    eventually(lambda: bool(server.coming_in), what="the first bytes on the disk")
    sending.shutdown(socket.SHUT_WR)
    status, document = answer(sending)
    assert (status, document["code"]) == (422, "digest_mismatch")
    assert nothing_is_visible()
    assert not server.coming_in


def test_f20_a_web_process_killed_in_mid_upload_leaves_no_version_and_a_file_that_is_collected(
    home, owner, address, onnx
):
    body = onnx()
    with serving(home) as server:
        raw = server.open(owner, address, OCTETS, f"Content-Length: {len(body)}")
        raw.sendall(body[: len(body) // 2])
        kind = "Content-Type: multipart/form-data; boundary=x"
        form = server.open(
            owner, "/api/v1/models/fraud/versions/", kind, "Content-Length: 100000", method="POST"
        )
        form.sendall(
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="m"\r\n\r\n' + bytes(70_000)
        )
        eventually(lambda: len(server.coming_in) == 2, what="both uploads to begin")
        server.kill()
        raw.close()
        form.close()
    left = server.coming_in
    assert len(left) == 2
    assert nothing_is_visible()
    artifacts.collect_garbage()
    assert len(server.coming_in) == 2, "what is young may still be coming"
    for file in left:
        os.utime(file, (time.time() - 2 * artifacts.GARBAGE_AFTER_S,) * 2)
    artifacts.collect_garbage()
    assert not server.coming_in
    with serving(home) as server:
        retry = server.open(owner, address, OCTETS, f"Content-Length: {len(body)}")
        retry.sendall(body)
        assert answer(retry)[0] == 201
    assert Version.objects.get().number == 1
