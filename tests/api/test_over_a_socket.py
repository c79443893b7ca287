"""What only a socket can send: framing, several hosts, bodies that are announced and never come.

The server is the real web process; every request is written by hand. Some of them the server answers itself,
before the product sees them: then what matters is that the answer is a refusal.
"""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from django.conf import settings

from controlplane.registry.models import Model
from tests import factories
from tests.api.answers import LEAKS
from tests.api.world import Person
from tests.controlplane.registry.test_api_server import Server, serving

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]

WITHIN_S = 20
GOOD = b'{"name": "fraud"}'
JSON = "Content-Type: application/json"
HOST, TOKEN = "Host: {host}", "Authorization: Bearer {token}"
USUAL = (HOST, TOKEN)
POST = "POST /api/v1/models/ HTTP/1.1"
GET = "GET /api/v1/models/ HTTP/1.1"
CHUNKED = b"11\r\n" + GOOD + b"\r\n0\r\n\r\n"
TOO_LARGE = settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1

REFUSED: dict[str, tuple[str, tuple[str, ...], bytes, set[int]]] = {
    "a chunked JSON body": (POST, (*USUAL, JSON, "Transfer-Encoding: chunked"), CHUNKED, {411}),
    "a gzip body": (POST, (*USUAL, JSON, "Content-Encoding: gzip", "Content-Length: 17"), GOOD, {415}),
    "a body that is announced too large and never comes": (
        POST, (*USUAL, JSON, f"Content-Length: {TOO_LARGE}"), b"", {413},
    ),
    "a body that is announced beyond any number": (
        POST, (*USUAL, JSON, "Content-Length: " + "9" * 30), b"", {400, 413},
    ),
    "two lengths": (POST, (*USUAL, JSON, "Content-Length: 17", "Content-Length: 5"), GOOD, {400}),
    "a negative length": (POST, (*USUAL, JSON, "Content-Length: -1"), GOOD, {400}),
    "a length and chunks": (
        POST, (*USUAL, JSON, "Content-Length: 17", "Transfer-Encoding: chunked"), CHUNKED, {400, 411},
    ),
    "TRACE": ("TRACE /api/v1/models/ HTTP/1.1", USUAL, b"", {405}),
    "CONNECT": ("CONNECT /api/v1/models/ HTTP/1.1", USUAL, b"", {400, 405}),
    "PUT on a list": ("PUT /api/v1/models/ HTTP/1.1", (*USUAL, JSON, "Content-Length: 17"), GOOD, {405}),
    "a made-up method": ("FOO /api/v1/models/ HTTP/1.1", USUAL, b"", {405}),
    "a forged host": (GET, ("Host: evil.example", TOKEN), b"", {400}),
    "no host": (GET, (TOKEN,), b"", {400}),
    "a forged absolute address": (
        "GET http://evil.example/api/v1/models/ HTTP/1.1", ("Host: evil.example", TOKEN), b"", {400},
    ),
    "a NUL in a header": (GET, (*USUAL, "X-Odd: a\0b"), b"", {400}),
    "a header without a colon": (GET, (*USUAL, "nonsense"), b"", {400}),
    "a header of a megabyte": (GET, (*USUAL, "X-Odd: " + "a" * 2**20), b"", {400, 431}),
    "10,000 headers": (GET, (*USUAL, *(f"X-{n}: a" for n in range(10_000))), b"", {400, 431}),
    "a NUL in the address": ("GET /api/v1/members/a%00b/ HTTP/1.1", USUAL, b"", {404}),
    "a NUL in the query": ("GET /api/v1/models/?search=%00 HTTP/1.1", USUAL, b"", {400}),
    "bytes that are no text in the address": ("GET /api/v1/models/%ff%fe/ HTTP/1.1", USUAL, b"", {404}),
    "an address of 100,000 characters": (
        f"GET /api/v1/models/{'a' * 100_000}/ HTTP/1.1", USUAL, b"", {400, 404, 414, 431},
    ),
    "a climb out of the address": ("GET /api/v1/../../etc/passwd HTTP/1.1", USUAL, b"", {404}),
    "another protocol": ("GET /api/v1/models/ HTTP/9.9", USUAL, b"", {400, 505}),
    "no protocol": ("\x16\x03\x01\x02\x00", (), b"", {400}),
}  # fmt: skip


@pytest.fixture
def person() -> Person:
    actor = factories.member(factories.team())
    return Person(actor=actor, token=factories.token(actor))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as running:
        yield running


def _answer(
    server: Server, person: Person, line: str, headers: tuple[str, ...], body: bytes
) -> tuple[int, bytes]:
    """Status and body. 0 where the server only closed the connection."""
    names = {"host": f"127.0.0.1:{server.port}", "token": person.token}
    head = [line, *(each.format_map(names) for each in headers), "Connection: close", "", ""]
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=WITHIN_S)) as made:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before it was all sent
            made.sendall("\r\n".join(head).encode("latin-1") + body)
        return _read(made)


def _read(made: socket.socket) -> tuple[int, bytes]:
    with closing(http.client.HTTPResponse(made)) as response:
        try:
            response.begin()
            return response.status, response.read()
        except (http.client.HTTPException, ConnectionError):
            return 0, b""


def test_each_is_refused_in_time_and_the_server_lives_on(server: Server, person: Person) -> None:
    wrong = []
    for what, (line, headers, body, statuses) in REFUSED.items():
        status, said = _answer(server, person, line, headers, body)
        text = said.decode("utf-8", "replace")
        if status not in (statuses | {0} if 400 in statuses else statuses):
            wrong.append(f"{what}: {status} {text[:200]}")
        if said and (json.loads(said)["status"] != status or any(leak in text for leak in LEAKS)):
            wrong.append(f"{what}: says {text[:300]}")
    assert not wrong, "\n".join(wrong)
    assert not Model.objects.exists()
    status, _ = _answer(server, person, POST, (*USUAL, JSON, "Content-Length: 17"), GOOD)
    assert status == 201


def test_a_body_that_breaks_off_makes_nothing(server: Server, person: Person) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=WITHIN_S)) as made:
        head = f"{POST}\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {person.token}\r\n"
        made.sendall(f"{head}{JSON}\r\nContent-Length: 100\r\n\r\n".encode() + GOOD)
        made.shutdown(socket.SHUT_WR)
        status, _ = _read(made)
    assert status in {0, 400}
    assert not Model.objects.exists()
