"""What the edge does to a request: it routes, streams, tells the truth about the client, and repeats nothing."""

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote

import pytest
from django.core.exceptions import RequestDataTooBig
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.parsers import MultiPartParser

from controlplane.core import problems
from controlplane.core.json import StrictJSONParser
from controlplane.core.limits import LARGEST_BODY_BYTES
from controlplane.embedded import edge, ports
from controlplane.embedded.home import Home
from controlplane.embedded.spawn import child_environment, spawn
from controlplane.registry import urls as page_urls
from controlplane.registry.api import urls as api_urls
from controlplane.settings.environment import REPOSITORY
from tests.controlplane.embedded.conftest import home_folder, until

pytestmark = pytest.mark.processes

UPLOAD = "/api/v1/models/m/versions/upload/"


class Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, dict[str, str]]] = []
    begun: list[str] = []
    """The paths of bodies whose first byte came."""
    release = threading.Event()
    cut = threading.Event()

    def do_GET(self) -> None:
        type(self).seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        if self.path == "/live/events":
            self._stream()
            return
        if self.path == "/broken":
            self.close_connection = True
            return
        if self.path.startswith("/typed/"):
            self._answer(b"<p>the same again</p>" * 500, kind=unquote(self.path.removeprefix("/typed/")))
            return
        self._answer(f"{self.server.server_port} {self.path}".encode())

    def do_POST(self) -> None:
        type(self).begun.append(self.path)
        self._answer(self.rfile.read(int(self.headers["Content-Length"]))[:10])

    def do_PUT(self) -> None:
        self.rfile.read(1)
        type(self).begun.append(self.path)
        left = int(self.headers["Content-Length"]) - 1
        rest = self.rfile.read(left)
        if len(rest) < left:
            type(self).cut.set()
            self.close_connection = True
            return
        self._answer(str(len(rest) + 1).encode())

    def _answer(self, body: bytes, *, kind: str = "text/plain") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"data: first\n\n")
        self.wfile.flush()
        type(self).release.wait(30)
        self.wfile.write(b"data: last\n\n")
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def upstream() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        Upstream.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """An edge whose web and live exist."""
    with upstream() as web, upstream() as live, running_edge(web=web, live=live) as found:
        yield found


@pytest.fixture(scope="module")
def lonely() -> Iterator[str]:
    """An edge with nothing behind it."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{unused.getsockname()[1]}"
        with running_edge(web=nobody, live=nobody) as found:
            yield found


@contextmanager
def running_edge(*, web: str, live: str) -> Iterator[str]:
    with home_folder() as folder:
        home = Home(root=folder)
        home.prepare()
        address = f"127.0.0.1:{ports.choose(home, ['edge'])['edge']}"
        edge.prepare(home, address=address, web=web, live=live)
        environment = child_environment(home=folder, values={}, reads=())
        child = spawn(
            edge.argv(home, python=sys.executable),
            environment=environment,
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
        )
        try:
            until(lambda: ports.bind_error(*edge.split(address)) is not None)
            yield address
        finally:
            child.terminate()
            child.wait()


def ask(address: str, path: str, **headers: str) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection(address, timeout=20)
    try:
        connection.request(
            "GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_the_client_cannot_say_who_it_is(address: str) -> None:
    ask(
        address,
        "/who",
        X_Forwarded_For="1.2.3.4",
        X_Envoy_External_Address="1.2.3.4",
        Forwarded="for=1.2.3.4",
    )
    headers = next(headers for path, headers in reversed(Upstream.seen) if path == "/who")
    assert {name: value for name, value in headers.items() if "forwarded" in name or "external" in name} == {
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-host": address,
        "x-forwarded-proto": "http",
        "x-envoy-external-address": "127.0.0.1",
    }


@contextmanager
def begun(address: str, method: str, path: str, *, length: int = 1_000_000) -> Iterator[HTTPConnection]:
    """A request whose body has begun."""
    with closing(HTTPConnection(address, timeout=20)) as connection:
        connection.putrequest(method, path)
        connection.putheader("Content-Length", str(length))
        connection.endheaders()
        connection.send(b"x")
        yield connection


def test_an_upload_reaches_web_before_it_ends(address: str) -> None:
    Upstream.begun.clear()
    with begun(address, "PUT", UPLOAD) as connection:
        until(lambda: Upstream.begun == [UPLOAD])
        connection.send(b"x" * 999_999)
        assert connection.getresponse().read() == b"1000000"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/account/login/"), ("POST", UPLOAD), ("PUT", "/api/v1/models/m/aliases/a/")],
)
def test_b20_what_is_no_upload_reaches_web_whole_and_holds_none_of_its_threads(
    address: str, method: str, path: str
) -> None:
    Upstream.begun.clear()
    with ExitStack() as stack:
        slow = [stack.enter_context(begun(address, method, path, length=10)) for _ in range(40)]
        assert ask(address, "/page")[0].status == 200
        assert Upstream.begun == []
        for connection in slow:
            connection.send(b"x" * 9)
            assert connection.getresponse().status == 200
    assert Upstream.begun == [path] * 40


def test_b20_more_uploads_than_are_taken_are_told_so_and_pages_are_answered(address: str) -> None:
    Upstream.begun.clear()
    with ExitStack() as stack:
        for _ in range(edge.UPLOADS_AT_ONCE):
            stack.enter_context(begun(address, "PUT", UPLOAD))
        until(lambda: len(Upstream.begun) == edge.UPLOADS_AT_ONCE)
        for _ in range(40):
            answer, body = _small_upload(address)
            assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
            assert json.loads(body)["code"] == "too_many_at_once"
        assert ask(address, "/page")[0].status == 200
    until(lambda: _small_upload(address)[0].status == 200)


def _small_upload(address: str) -> tuple[HTTPResponse, bytes]:
    with begun(address, "PUT", UPLOAD, length=1) as connection:
        answer = connection.getresponse()
        return answer, answer.read()


def test_a_body_that_is_too_large_is_refused_as_web_would_refuse_it(address: str) -> None:
    limit = LARGEST_BODY_BYTES
    with begun(address, "POST", "/api/v1/models/", length=limit) as connection:
        connection.send(b"x" * (limit - 1))
        assert connection.getresponse().read() == b"x" * 10
    with begun(address, "POST", "/api/v1/models/", length=limit + 1) as connection:
        with suppress(ConnectionError):
            connection.send(b"x" * limit)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Content-Type"]) == (413, "application/problem+json")
        by_web = problems.translate(RequestDataTooBig(f"At most {limit:,} bytes are read."))
        assert by_web is not None
        assert json.loads(answer.read()) == by_web.problem() | {"instance": "/api/v1/models/"}


def test_every_view_that_takes_a_file_is_an_upload_for_the_edge() -> None:
    takers = {"POST": set(), "PUT": set()}
    for pattern in api_urls.urlpatterns:
        kind = pattern.callback.cls  # type: ignore[union-attr]
        for parser in set(kind.parser_classes) - {StrictJSONParser}:
            takers["POST" if parser is MultiPartParser else "PUT"].add(f"/api/v1/{pattern.pattern}")
    for name in ("new-model", "new-version", "new-dataset"):
        pattern = next(one for one in page_urls.urlpatterns if one.name == name)
        takers["POST"].add(f"/models/{pattern.pattern}")
    assert all(len(paths) > 1 for paths in takers.values())
    for method, paths in takers.items():
        for path in paths:
            assert re.fullmatch(edge.UPLOADS[method], re.sub("<[^>]+>", "x", path)), path


def test_f21_an_upload_that_trickles_is_ended_and_web_is_free_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps every other timer from running out."""
    monkeypatch.setattr(edge, "REQUEST_TIMEOUT", "1s")
    with upstream() as web, running_edge(web=web, live=web) as address:
        with socket.create_connection(edge.split(address), timeout=0.2) as raw:
            raw.sendall(f"PUT {UPLOAD} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".encode())
            answer = b"".join(_while_trickling(raw))
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"application/problem+json" in answer
        until(lambda: Upstream.cut.is_set())


def _while_trickling(raw: socket.socket) -> Iterator[bytes]:
    """What is heard while a byte is sent at each turn, until the other side ends it."""
    while True:
        try:
            if not (heard := raw.recv(65536)):
                return
            yield heard
        except TimeoutError:
            with suppress(ConnectionError):
                raw.sendall(b"x")
        except ConnectionError:
            return


def test_an_event_reaches_the_client_before_the_stream_ends(address: str) -> None:
    Upstream.release.clear()
    connection = HTTPConnection(address, timeout=20)
    connection.request("GET", "/live/events")
    answer = connection.getresponse()
    assert answer.read(13) == b"data: first\n\n"
    Upstream.release.set()
    assert answer.read() == b"data: last\n\n"
    connection.close()


@pytest.mark.parametrize(
    ("kind", "small"),
    [
        ("text/html; charset=utf-8", True),
        ("text/css", True),
        ("text/javascript", True),
        ("application/json", False),
        ("application/octet-stream", False),
        ("text/csv", False),
    ],
)
def test_pages_are_compressed_and_what_the_api_answers_keeps_its_tag(
    address: str, kind: str, small: bool
) -> None:
    answer, body = ask(address, f"/typed/{quote(kind)}", Accept_Encoding="gzip, br")
    assert answer.status == 200
    assert (answer.headers["Content-Encoding"] == "gzip") is small
    assert (len(body) < 1000) is small
    assert small or answer.headers["ETag"] == '"one"'


def test_a_request_that_web_may_have_seen_is_not_repeated(address: str) -> None:
    answer, body = ask(address, "/broken")
    assert answer.status == 503
    assert json.loads(body)["detail"].startswith("It ended while it had the request")
    assert [path for path, _ in Upstream.seen].count("/broken") == 1


def test_an_api_client_without_web_gets_a_problem_document(lonely: str) -> None:
    answer, body = ask(lonely, "/api/v1/models/")
    assert (answer.status, answer.headers["Content-Type"], answer.headers["Retry-After"]) == (
        503,
        "application/problem+json",
        "2",
    )
    problem = json.loads(body)
    assert problem["status"] == 503
    assert problem["detail"].startswith("Nothing was done")
    assert problem["code"] == "web_unavailable"
    assert problem["instance"] == "/api/v1/models/"


def test_a_browser_without_web_gets_a_page_that_asks_again(lonely: str) -> None:
    answer, body = ask(lonely, "/", Accept="text/html,application/xhtml+xml")
    assert (answer.status, answer.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
    assert b"http-equiv=refresh" in body


def test_the_answer_of_the_edge_itself_counts_as_not_answering(address: str, lonely: str) -> None:
    assert edge.answers(address)
    assert not edge.answers(lonely)


def test_a_request_that_is_none_gets_a_problem_document(address: str) -> None:
    host, port = edge.split(address)
    with socket.create_connection((host, port), timeout=20) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: two\r\n\r\n")
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in answer


@given(host=st.ip_addresses(), port=st.integers(0, 65535))
def test_an_address_reads_back_as_written(host: object, port: int) -> None:
    shown = f"[{host}]" if ":" in str(host) else str(host)
    assert edge.split(f"{shown}:{port}") == (str(host), port)


@pytest.mark.parametrize(
    "text", ["", "8400", "host", "host:", ":8400", "host:-1", "host:65536", "host:8 400"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not HOST:PORT"):
        edge.split(text)
