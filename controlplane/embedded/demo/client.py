"""The demo speaks to the product as any program does: JSON over HTTP with a token."""

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

WAIT_S = 600.0
POLL_S = 0.5


class Refused(Exception):
    """The API answered with a problem document."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(f"{problem.get('title', '')} {problem.get('detail', '')}".strip())
        self.code = problem.get("code", "")


@dataclass(frozen=True, kw_only=True)
class Api:
    """`url` is the product's address, such as http://127.0.0.1:8400/."""

    url: str
    token: str

    def get(self, path: str) -> Any:
        return self._ask("GET", path)

    def post(self, path: str, document: Any = None, **headers: str) -> Any:
        return self._ask("POST", path, json.dumps(document or {}).encode(), "application/json", headers)

    def put(self, path: str, document: Any) -> Any:
        return self._ask("PUT", path, json.dumps(document).encode(), "application/json")

    def upload(self, path: str, content: bytes) -> Any:
        return self._ask("PUT", path, content, "application/octet-stream")

    def wait(self, path: str, until: Callable[[Any], bool], *, within_s: float = WAIT_S) -> Any:
        """Asks again until the answer is as wanted. Raises TimeoutError that quotes the last one."""
        end = time.monotonic() + within_s
        while True:
            answer = self.get(path)
            if until(answer):
                return answer
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{path} did not get there within {within_s:.0f} s; it says {str(answer)[:400]}"
                )
            time.sleep(POLL_S)

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        address = urlsplit(self.url).netloc
        connection = http.client.HTTPConnection(address, timeout=120)
        sent = {"Authorization": f"Bearer {self.token}"}
        sent |= {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        if content_type:
            sent["Content-Type"] = content_type
        try:
            connection.request(method, f"/api/v1/{path}", body=body, headers=sent)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        document = json.loads(content) if content else None
        if answer.status >= 400:
            raise Refused(document or {"title": f"HTTP {answer.status}"})
        return document
