"""Whatever answers at a cluster's address becomes one of our errors, with a sentence for whoever reads it."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.errors import Conflict, NotFound, SlipwayError, Unprocessable
from deployments.targets.kubernetes import errors
from deployments.targets.kubernetes.api import Api
from deployments.targets.kubernetes.kinds import CONFIG_MAP, POD
from deployments.targets.kubernetes.kubeconfig import Connection
from deployments.targets.port import Unreachable
from tests.certificates import Authority
from tests.deployments.targets.conftest import free_port

FORBIDDEN = 'User "slipway" cannot patch resource "configmaps" in API group "" in the namespace "ml"'
OWNED = {
    "causes": [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-edit" using v1',
            "field": ".data.n",
        }
    ]
}
INVALID = {
    "causes": [
        {
            "reason": "FieldValueInvalid",
            "message": "must be no more than 63 characters",
            "field": "metadata.name",
        }
    ]
}
HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass
class Scripted:
    """A server that gives one answer to everything."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    silent: threading.Event | None = None
    paths: list[str] = field(default_factory=list)
    server: ThreadingHTTPServer = field(init=False)

    def start(self, wrap: Callable[[socket.socket], socket.socket] = lambda plain: plain) -> "Scripted":
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                scripted.paths.append(self.path)
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if scripted.silent is not None:
                    scripted.silent.wait(30)
                body = scripted.body  # the next one may be set as soon as the head is out
                self.send_response(scripted.status)
                for name, value in scripted.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, *args: Any) -> None:
                """Says nothing."""

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *args: Any) -> None:
                """Clients that hang up are what is tested."""

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.server.socket = wrap(self.server.socket)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def stop(self) -> None:
        if self.silent is not None:
            self.silent.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    running = Scripted().start()
    yield running
    running.stop()


def reached(port: int, **fields: Any) -> Api:
    return Api(Connection(server=f"http://127.0.0.1:{port}", token="secret-token", **fields))


def manifest() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "ml"}}


CALLS: dict[str, Callable[[Api], object]] = {
    "get": lambda cluster: cluster.get(CONFIG_MAP, "a", "ml"),
    "list": lambda cluster: cluster.list(CONFIG_MAP, "ml"),
    "apply": lambda cluster: cluster.apply(CONFIG_MAP, manifest()),
    "merge": lambda cluster: cluster.merge(CONFIG_MAP, "a", "ml", {"data": {}}),
    "create": lambda cluster: cluster.create(CONFIG_MAP, manifest(), "ml"),
    "log": lambda cluster: cluster.log("a", "ml", container="server", tail=1),
    "raw": lambda cluster: cluster.raw("/version"),
    "watch": lambda cluster: list(cluster.watch(POD, "ml", version="1")),
}


def status(code: int, reason: str, message: str, details: Mapping[str, Any] | None = None) -> bytes:
    told = {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details or {}}
    return json.dumps(told).encode()


# What is answered: its status, body and headers; and the error that it becomes.
ANSWERS = {
    "400": (400, status(400, "BadRequest", "the field is no number"), {}, Unprocessable, "invalid_in_cluster"),
    "401": (401, status(401, "Unauthorized", "Unauthorized"), {}, Unreachable, "credentials_refused"),
    "403 rights": (403, status(403, "Forbidden", f"forbidden: {FORBIDDEN}"), {}, errors.Refused, "not_permitted"),
    "403 quota": (
        403, status(403, "Forbidden", "forbidden: exceeded quota: small"), {}, errors.Refused, "quota_exceeded",
    ),
    "403 admission": (
        403, status(403, "Forbidden", "admission webhook denied the request: no"), {}, errors.Refused, "denied",
    ),
    "403 namespace": (
        403, status(403, "Forbidden", "namespace ml is being terminated"), {}, errors.Refused,
        "namespace_terminating",
    ),
    "404": (404, status(404, "NotFound", "not found"), {}, NotFound, "not_in_cluster"),
    "409 exists": (409, status(409, "AlreadyExists", "already exists"), {}, errors.Moved, "object_moved"),
    "409 moved": (
        409, status(409, "Conflict", "the object has been modified"), {}, errors.Moved, "object_moved",
    ),
    "409 owned": (409, status(409, "Conflict", "1 conflict", OWNED), {}, errors.FieldConflict, "field_conflict"),
    "422": (422, status(422, "Invalid", "is invalid", INVALID), {}, Unprocessable, "invalid_in_cluster"),
    "429": (429, status(429, "TooManyRequests", "slow down"), {}, Unreachable, "cluster_busy"),
    "429 with a time": (429, b"", {"Retry-After": "7"}, Unreachable, "cluster_busy"),
    "500": (500, status(500, "InternalError", "etcd is away"), {}, Unreachable, "cluster_failing"),
    "503": (503, b"", {}, Unreachable, "cluster_failing"),
    "502 of a proxy": (502, HTML, {"Content-Type": "text/html"}, Unreachable, "cluster_failing"),
    "redirect": (302, b"", {"Location": "http://127.0.0.1:9/elsewhere"}, Unreachable, "cluster_failing"),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_each_answer_is_an_error_with_a_sentence(scripted: Scripted, answer: str, call: str) -> None:
    scripted.status, scripted.body, scripted.headers, kind, code = ANSWERS[answer]
    error = refused(reached(scripted.port), call)
    assert isinstance(error, kind)
    assert error.code == code


def refused(cluster: Api, call: str) -> SlipwayError:
    """The error of a call, which says what happened and gives nothing away."""
    with pytest.raises(SlipwayError) as caught:
        CALLS[call](cluster)
    assert caught.value.title.endswith(".")
    assert caught.value.detail
    assert "secret-token" not in f"{caught.value.title}{caught.value.detail}{caught.value.extra}"
    return caught.value


@pytest.mark.parametrize("call", [name for name in CALLS if name != "watch"])
def test_a_version_that_is_gone_says_when_to_try_again(scripted: Scripted, call: str) -> None:
    scripted.status, scripted.body = 410, status(410, "Expired", "too old resource version")
    assert refused(reached(scripted.port), call).retry_after_s


def test_a_watch_s_version_that_is_gone_asks_for_a_list(scripted: Scripted) -> None:
    """By the status of the answer, and by an event in the middle."""
    scripted.status, scripted.body = 410, status(410, "Expired", "too old resource version")
    with pytest.raises(errors.Expired):
        CALLS["watch"](reached(scripted.port))
    scripted.status = 200
    scripted.body = b'{"type": "ERROR", "object": ' + scripted.body + b"}\n"
    with pytest.raises(errors.Expired):
        CALLS["watch"](reached(scripted.port))


def test_an_error_in_the_middle_of_a_watch_is_the_same_error(scripted: Scripted) -> None:
    scripted.body = b'{"type": "ERROR", "object": ' + ANSWERS["500"][1] + b"}\n"
    assert refused(reached(scripted.port), "watch").code == "cluster_failing"


def test_the_fields_their_owners_and_the_waits_are_kept(scripted: Scripted) -> None:
    cluster = reached(scripted.port)

    def error_of(answer: str) -> SlipwayError:
        scripted.status, scripted.body, scripted.headers, *_ = ANSWERS[answer]
        return refused(cluster, "apply")

    owned = error_of("409 owned")
    assert isinstance(owned, errors.FieldConflict)
    assert owned.owners == {".data.n": "kubectl-edit"}
    assert "kubectl-edit" in owned.detail
    invalid = error_of("422")
    assert invalid.fields == {"metadata.name": ["must be no more than 63 characters"]}
    assert error_of("429 with a time").retry_after_s == 7
    assert error_of("429").retry_after_s == errors.BUSY_S
    assert isinstance(error_of("409 moved"), Conflict)


NO_DOCUMENTS = [HTML, b"", b"[]", b'"text"', b"null", b"\xff\xfe"]


@pytest.mark.parametrize("call", ["get", "list", "apply", "merge", "create"])
@pytest.mark.parametrize("body", NO_DOCUMENTS)
def test_an_answer_that_is_no_document_is_nobody_s_cluster(
    scripted: Scripted, body: bytes, call: str
) -> None:
    """A captive portal says 200, too."""
    scripted.body = body
    assert refused(reached(scripted.port), call).code == errors.AWAY


@pytest.mark.parametrize(
    "body", [HTML + b"\n", b"[]\n", b"{}\n", b'{"type": "ADDED", "object": {}}\n', b"7\n"]
)
def test_a_watch_that_says_no_events_is_nobody_s_cluster(scripted: Scripted, body: bytes) -> None:
    scripted.body = body
    assert refused(reached(scripted.port), "watch").code == errors.AWAY


def test_a_list_without_its_version_is_nobody_s_list(scripted: Scripted) -> None:
    scripted.body = b"{}"
    assert refused(reached(scripted.port), "list").code == errors.AWAY


@pytest.mark.parametrize("call", CALLS)
def test_a_redirect_is_not_followed_and_takes_no_token_along(scripted: Scripted, call: str) -> None:
    elsewhere = Scripted(body=b"{}").start()
    scripted.status, scripted.headers = 307, {"Location": f"http://127.0.0.1:{elsewhere.port}/"}
    assert refused(reached(scripted.port), call).code == "cluster_failing"
    elsewhere.stop()
    assert elsewhere.paths == []


@pytest.mark.parametrize("call", CALLS)
def test_nobody_listening_is_unreachable(call: str) -> None:
    error = refused(reached(free_port()), call)
    assert error.code == errors.AWAY
    assert "refused" in error.detail


@pytest.mark.parametrize("call", CALLS)
def test_silence_is_unreachable(scripted: Scripted, call: str) -> None:
    scripted.silent = threading.Event()
    impatient = Api(reached(scripted.port).connection, read_s=0.2)
    assert refused(impatient, call).code == errors.AWAY


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[Scripted, Authority]]:
    authority = Authority.make(tmp_path / "ca", called="cluster")
    pair = authority.both("elsewhere.example.com", hosts=("elsewhere.example.com",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    running = Scripted(body=b'{"metadata": {}}').start(
        lambda plain: context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
    )
    yield running, authority
    running.stop()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("known", [True, False])
def test_a_certificate_of_another_name_or_signer_is_unreachable(
    tls: tuple[Scripted, Authority], tmp_path: Path, call: str, known: bool
) -> None:
    running, authority = tls
    signer = authority if known else Authority.make(tmp_path / "other", called="other")
    connection = Connection(
        server=f"https://127.0.0.1:{running.port}",
        ca_pem=signer.certificate.read_text(),
        token="secret-token",
        server_name="" if known else "elsewhere.example.com",
    )
    assert refused(Api(connection), call).code == errors.AWAY
    assert running.paths == []


def test_the_same_certificate_by_its_name_and_signer_is_taken(tls: tuple[Scripted, Authority]) -> None:
    running, authority = tls
    connection = Connection(
        server=f"https://127.0.0.1:{running.port}",
        ca_pem=authority.certificate.read_text(),
        server_name="elsewhere.example.com",
    )
    assert Api(connection).get(CONFIG_MAP, "a", "ml") == {"metadata": {}}


def test_plain_text_where_tls_is_spoken_is_unreachable(scripted: Scripted) -> None:
    cluster = Api(Connection(server=f"https://127.0.0.1:{scripted.port}", token="secret-token"))
    assert refused(cluster, "get").code == errors.AWAY


def test_a_token_that_this_installation_lost_is_unreachable(scripted: Scripted, tmp_path: Path) -> None:
    cluster = Api(
        Connection(server=f"http://127.0.0.1:{scripted.port}", token_file=str(tmp_path / "gone/token"))
    )
    assert "token" in refused(cluster, "get").detail


@pytest.mark.parametrize("call", ["get", "list", "watch"])
def test_an_answer_that_breaks_off_is_unreachable(call: str) -> None:
    """Its length says more than there is."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def half() -> None:
            line, _ = listening.accept()
            line.recv(4096)
            line.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"metadata": {"res')
            line.close()

        thread = threading.Thread(target=half)
        thread.start()
        assert refused(reached(listening.getsockname()[1]), call).code == errors.AWAY
        thread.join()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMED = st.sampled_from(["message", "reason", "details", "causes", "code"])


@given(
    code=st.integers(300, 599),
    body=st.binary(max_size=40) | st.dictionaries(NAMED, JSON | st.dictionaries(NAMED, JSON)).map(
        lambda document: json.dumps(document).encode()
    ),
    retry_after=st.text(max_size=6),
)  # fmt: skip
def test_no_status_and_no_body_is_more_than_an_error(code: int, body: bytes, retry_after: str) -> None:
    error = errors.of(code, body, server="https://c", what="read ConfigMap a", retry_after=retry_after)
    assert isinstance(error, SlipwayError)
    assert error.title.endswith(".")
