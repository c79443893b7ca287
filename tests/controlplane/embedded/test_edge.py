"""What the edge does to a request: it routes, streams, tells the truth about the client, and repeats nothing."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.embedded import edge, ports
from controlplane.embedded.home import Home
from controlplane.embedded.spawn import child_environment, spawn
from controlplane.settings.environment import REPOSITORY
from tests.controlplane.embedded.conftest import home_folder, until

pytestmark = pytest.mark.processes


class Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, dict[str, str]]] = []
    first_byte = threading.Event()
    release = threading.Event()
    cut = threading.Event()

    def do_GET(self) -> None:
        type(self).seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        if self.path.startswith("/live/"):
            self._stream()
            return
        if self.path == "/broken":
            self.close_connection = True
            return
        if self.path.startswith("/typed/"):
            self._answer(b"<p>the same again</p>" * 500, kind=unquote(self.path.removeprefix("/typed/")))
            return
        self._answer(f"{self.server.server_port} {self.path}".encode())

    def do_PUT(self) -> None:
        self.rfile.read(1)
        type(self).first_byte.set()
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


def test_an_upload_reaches_web_before_it_ends(address: str) -> None:
    Upstream.first_byte.clear()
    connection = HTTPConnection(address, timeout=20)
    connection.putrequest("PUT", "/upload")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders()
    connection.send(b"x")
    assert Upstream.first_byte.wait(20)
    connection.send(b"x" * 999_999)
    assert connection.getresponse().read() == b"1000000"
    connection.close()


def test_f21_an_upload_that_trickles_is_ended_and_web_is_free_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps every other timer from running out."""
    monkeypatch.setattr(edge, "REQUEST_TIMEOUT", "1s")
    with upstream() as web, running_edge(web=web, live=web) as address:
        with socket.create_connection(edge.split(address), timeout=0.2) as raw:
            raw.sendall(b"PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
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
