"""Speaks to the node: a small client for processes that wait (workers, web), on a Unix socket or TCP.

Every call has its limits (3 s to connect, 10 s to answer) and one connection of its own: calls are few, and a
connection that is kept is one more that can be half dead. Refused: an HTTP library for six routes.
"""

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from controlplane.core.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    SlipwayError,
    StorageFull,
    Unavailable,
)
from deployments.targets.port import StaleGeneration, StaleLive, Unreachable

CONNECT_S, ANSWER_S = 3.0, 10.0

_BY_CODE: dict[str, type[SlipwayError]] = {"stale_generation": StaleGeneration, "live_moved": StaleLive}
_BY_STATUS: dict[int, type[SlipwayError]] = {
    400: InvalidInput,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    503: Unavailable,
    507: StorageFull,
}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("node", timeout=CONNECT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class NodeClient:
    """`url` is "unix:/path/of.sock" or "http://host:port"."""

    def __init__(self, url: str, *, token: str = "") -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, *parts: str, **query: Any) -> dict[str, Any]:
        """Raises Unreachable, and what the node refused with. `parts` are quoted into the path."""
        return _document(self._ask("GET", _path(parts, query)))

    def text(self, *parts: str) -> str:
        return self._ask("GET", _path(parts, {})).decode()

    def put(self, *parts: str, body: Mapping[str, Any], if_match: str | None) -> dict[str, Any]:
        headers = {"If-Match": f'"{if_match}"'} if if_match is not None else {}
        return _document(self._ask("PUT", _path(parts, {}), body=body, headers=headers))

    def post(self, *parts: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return _document(self._ask("POST", _path(parts, {}), body=body))

    def delete(self, *parts: str) -> None:
        self._ask("DELETE", _path(parts, {}))

    def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        connection = self._connection()
        try:
            connection.connect()
            connection.sock.settimeout(ANSWER_S)
            content = json.dumps(body).encode() if body is not None else None
            connection.request(method, path, body=content, headers={**self._headers, **(headers or {})})
            response = connection.getresponse()
            status, answer = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(
                "node_unreachable",
                "The node of this machine does not answer.",
                f"{self._url}: {error or type(error).__name__}. What it runs keeps running.",
                retry_after_s=2,
            ) from error
        finally:
            connection.close()
        if status >= 400:
            raise _refusal(status, answer)
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        if self._url.startswith("unix:"):
            return _UnixConnection(Path(self._url.removeprefix("unix:")))
        parts = urlsplit(self._url)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=CONNECT_S)


def _document(answer: bytes) -> dict[str, Any]:
    try:
        document = json.loads(answer or b"{}")
    except ValueError as error:
        raise Unreachable(
            "node_unreadable",
            "The node's answer cannot be read.",
            "What it runs keeps running; try again.",
            retry_after_s=2,
        ) from error
    return document if isinstance(document, dict) else {}


def _refusal(status: int, answer: bytes) -> SlipwayError:
    problem = _document(answer)
    code = str(problem.get("code", "node_fault"))
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, SlipwayError)
    extra = {name: problem[name] for name in ("live_generation",) if name in problem}
    title = str(problem.get("title", f"The node answered {status}."))
    return kind(code, title, str(problem.get("detail", "")), extra=extra)


def _path(parts: tuple[str, ...], query: Mapping[str, Any]) -> str:
    path = "/v1/" + "/".join(quote(part, safe="") for part in parts)
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path
