"""Small servers that speak what Hugging Face and MLflow document, on real sockets, and count what they are asked.

The hub hands small files out itself and redirects large ones to a second server, as the real one does.
"""

import json
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(kw_only=True)
class Hub:
    """`acme/churn` has `files`, at COMMIT. `large` are announced as LFS files, and lie at `store`."""

    files: dict[str, bytes]
    large: set[str] = field(default_factory=set)
    store: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    """What is said of a file instead of the truth."""
    wants_token: str = ""
    status: int = 200
    cut: bool = False
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path)
        self.asked.append(path)
        self.tokens.append(request.headers.get("Authorization", ""))
        if self.wants_token and self.tokens[-1] != f"Bearer {self.wants_token}":
            _send(request, 401, b"{}")
        elif self.status != 200:
            _send(request, self.status, b"{}")
        elif path in {f"/api/models/acme/churn/revision/{name}" for name in ("main", "v1", COMMIT)}:
            _send(request, 200, json.dumps(self._listing()).encode())
        elif path.startswith(f"/acme/churn/resolve/{COMMIT}/"):
            self._resolve(request, path.removeprefix(f"/acme/churn/resolve/{COMMIT}/"))
        else:
            _send(request, 404, b"{}")

    def _listing(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        for name, body in self.files.items():
            row: dict[str, Any] = {"rfilename": name, "size": len(body), "blobId": "0" * 40}
            if name in self.large:
                digest = self.digests.get(name, sha256(body).hexdigest())
                row["lfs"] = {"sha256": digest, "size": len(body), "pointerSize": 134}
            rows.append(row)
        return {"id": "acme/churn", "sha": COMMIT, "private": False, "siblings": rows}

    def _resolve(self, request: BaseHTTPRequestHandler, name: str) -> None:
        if name in self.large and self.store:
            request.send_response(302)
            request.send_header("Location", f"{self.store}/{name}?signature=secret")
            request.end_headers()
        else:
            _send(request, 200, self.files[name], cut=self.cut)


@dataclass(kw_only=True)
class Store:
    """Where large files lie: it is asked without a token."""

    hub: Hub
    url: str = ""
    tokens: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.tokens.append(request.headers.get("Authorization", ""))
        _send(request, 200, self.hub.files[unquote(urlsplit(request.path).path).lstrip("/")])


@dataclass(kw_only=True)
class Tracking:
    """An MLflow server with version 3 of `churn scorer`, which `champion` points to."""

    files: dict[str, bytes]
    root: str = "mlflow-artifacts:/0/models/m-1/artifacts"
    login: str = ""
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        given = request.headers.get("Authorization", "")
        if self.login and given != f"Basic {b64encode(self.login.encode()).decode()}":
            _send(request, 401, b"{}")
            return
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        api, artifacts = "/api/2.0/mlflow/", "/api/2.0/mlflow-artifacts/artifacts"
        version = {
            "model_version": {"name": "churn scorer", "version": "3", "run_id": "r1", "status": "READY"}
        }
        found: Any = None
        match parts.path.removeprefix(api):
            case "registered-models/alias" if query == {"name": "churn scorer", "alias": "champion"}:
                found = version
            case "model-versions/get" if query == {"name": "churn scorer", "version": "3"}:
                found = version
            case "model-versions/get-download-uri" if query == {"name": "churn scorer", "version": "3"}:
                found = {"artifact_uri": self.root}
        if parts.path == artifacts:
            found = self._listing(query["path"].removeprefix("0/models/m-1/artifacts").strip("/"))
        if found is not None:
            _send(request, 200, json.dumps(found).encode())
        elif parts.path.startswith(f"{artifacts}/0/models/m-1/artifacts/"):
            name = unquote(parts.path).removeprefix(f"{artifacts}/0/models/m-1/artifacts/")
            _send(request, 200, self.files[name])
        else:
            _send(request, 404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}')

    def _listing(self, folder: str) -> dict[str, Any]:
        inside = [
            name.removeprefix(f"{folder}/")
            for name in self.files
            if not folder or name.startswith(f"{folder}/")
        ]
        files = [{"path": name, "is_dir": False, "file_size": 1} for name in inside if "/" not in name]
        for row in files:
            row["file_size"] = len(self.files[f"{folder}/{row['path']}".lstrip("/")])
        folders = sorted({name.partition("/")[0] for name in inside if "/" in name})
        return {"files": files + [{"path": name, "is_dir": True} for name in folders]}


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, *, cut: bool = False) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body[: len(body) // 2] if cut else body)


def certificate(folder: Path) -> Path:
    """Of `localhost`, signed by itself: a file with its key, which `SSL_CERT_FILE` makes trusted."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "localhost.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
    )
    return file


@contextmanager
def serving[Server: Hub | Store | Tracking](
    server: Server, *, host: str = "127.0.0.1", tls: Path | None = None
) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            running.socket = context.wrap_socket(running.socket, server_side=True)
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.url = f"http{'s' if tls else ''}://{host}:{running.server_port}"
        try:
            yield server
        finally:
            running.shutdown()
            thread.join()
