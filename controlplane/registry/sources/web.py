"""Asks a registry elsewhere over HTTP: nobody but the hosts that the operator named, and no longer than a limit.

What a user writes is never an address. Redirects are followed by hand: to the endpoint itself, or by https to a host
that is allowed; the token stays with the endpoint. Sentences name hosts, never addresses, which may hold signatures.
Refused: `huggingface_hub` and `mlflow-skinny`, which bring dozens of packages, follow redirects anywhere, keep caches
of their own and know no limit of bytes.
"""

import http.client
import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from controlplane.core.errors import SlipwayError, Unavailable, Unprocessable
from controlplane.registry.sources.values import Remote, RemoteFile

SILENCE_S = 30.0
MAX_DOCUMENT_BYTES = 16 * 1024**2
MAX_REDIRECTS = 5
_CHUNK = 1024**2
_REDIRECTS = {301, 302, 303, 307, 308}
_WAITING_HELPS = {408, 425, 429, 500, 502, 503, 504}


class Web:
    """Use for one import; `asking` is called before each request, and may raise. Everything else raises Unavailable
    where waiting helps, Unprocessable where it does not."""

    def __init__(self, remote: Remote, *, wall_s: float, asking: Callable[[], object]) -> None:
        self.remote = remote
        self._asking = asking
        self._until = time.monotonic() + wall_s
        self._wall_s = wall_s
        self._own = urlsplit(remote.endpoint)
        self._opener = OpenerDirector()
        for handler in (ProxyHandler, HTTPHandler, HTTPSHandler, HTTPDefaultErrorHandler, HTTPErrorProcessor):
            self._opener.add_handler(handler())

    def document(self, address: str, **query: str) -> Mapping[str, Any]:
        """A JSON object. `address` follows the endpoint."""
        body = bytearray()
        for chunk in self._read(f"{address}?{urlencode(query)}" if query else address):
            body += chunk
            if len(body) > MAX_DOCUMENT_BYTES:
                raise self._unreadable(f"It has more than {MAX_DOCUMENT_BYTES:,} bytes.")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self._unreadable("It is not JSON.") from error
        if not isinstance(found, dict):
            raise self._unreadable("It is not an object.")
        return found

    def content(self, file: RemoteFile) -> Iterator[bytes]:
        """The file's bytes as they come, as many as were announced."""
        count = 0
        for chunk in self._read(file.address):
            count += len(chunk)
            if file.size_bytes is not None and count > file.size_bytes:
                raise self._other_size(file)
            yield chunk
        if file.size_bytes is not None and count < file.size_bytes:
            raise self._other_size(file)

    def _read(self, address: str) -> Iterator[bytes]:
        with self._open(self.remote.endpoint.rstrip("/") + address) as answer:
            announced = answer.length
            count = 0
            while chunk := self._chunk(answer):
                count += len(chunk)
                yield chunk
            if announced is not None and count < announced:
                raise self._silent("it ended in the middle of a file")

    def _chunk(self, answer: http.client.HTTPResponse) -> bytes:
        """What is there: `read` would wait for a whole chunk, however slowly it drips."""
        if time.monotonic() > self._until:
            raise Unprocessable(
                "import_too_slow",
                f"{self.remote.name} did not give the files in time.",
                f"An import may take {self._wall_s:,.0f} s. An operator can set SLIPWAY_IMPORT_WALL_S.",
            )
        try:
            return answer.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise self._silent("the connection was lost") from error

    def _open(self, url: str) -> http.client.HTTPResponse:
        for _ in range(MAX_REDIRECTS + 1):
            self._asking()
            try:
                answer: http.client.HTTPResponse = self._opener.open(self._request(url), timeout=SILENCE_S)
                return answer
            except HTTPError as error:
                with error:
                    if error.code not in _REDIRECTS:
                        raise self._refusal(error.code) from None
                    url = self._redirected(url, error.headers.get("Location", ""))
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise self._silent(f"there is no way to {urlsplit(url).hostname}") from error
        raise self._bad_redirect("leads round in circles")

    def _request(self, url: str) -> Request:
        request = Request(url, headers={"User-Agent": "slipway"})  # noqa: S310  its scheme was looked at
        if self.remote.token and _origin(urlsplit(url)) == _origin(self._own):
            request.add_header("Authorization", _authorization(self.remote))
        return request

    def _redirected(self, url: str, location: str) -> str:
        try:
            following = urlsplit(urljoin(url, location))
            own = _origin(following) == _origin(self._own)
        except ValueError as error:
            raise self._bad_redirect("cannot be read") from error
        host = following.hostname or ""
        listed = any(host == name or host.endswith(f".{name}") for name in self.remote.hosts)
        if not own and not (listed and following.scheme == "https"):
            raise self._bad_redirect(f"leads to {host[:100] or 'no host'}, which is not allowed")
        return following.geturl()

    def _bad_redirect(self, why: str) -> SlipwayError:
        return Unprocessable(
            "redirect_refused",
            f"{self.remote.name} sent the import elsewhere.",
            f"A redirect {why}. An operator can add https hosts to SLIPWAY_IMPORT_HOSTS.",
        )

    def _refusal(self, status: int) -> SlipwayError:
        name, (_, token) = self.remote.name, self.remote.settings
        if status in _WAITING_HELPS:
            return Unavailable("source_unavailable", f"{name} cannot answer now.", f"It answered {status}.")
        if status in {401, 403}:
            return Unprocessable(
                "source_forbidden",
                f"{name} does not give this model to Slipway.",
                f"It answered {status}: the model is private or gated, or there is none of that name. What Slipway may "
                f"read is decided by {token}, which an operator sets.",
            )
        if status == 404:
            return Unprocessable(
                "source_missing",
                f"{name} has no such model or revision.",
                "It answered 404. Look at its name.",
            )
        return Unprocessable("source_refused", f"{name} refused the request.", f"It answered {status}.")

    def _silent(self, why: str) -> SlipwayError:
        return Unavailable("source_unavailable", f"{self.remote.name} does not answer.", f"{_sentence(why)}")

    def _unreadable(self, why: str) -> SlipwayError:
        return Unprocessable(
            "source_unreadable",
            f"The answer of {self.remote.name} cannot be used.",
            f"{why} An operator should look at {self.remote.settings[0]}.",
        )

    def _other_size(self, file: RemoteFile) -> SlipwayError:
        return Unprocessable(
            "digest_mismatch",
            "The bytes that arrived are not the ones announced.",
            f"“{file.path[:200]}” should have {file.size_bytes:,} bytes and has another number. Import it again.",
        )


def _authorization(remote: Remote) -> str:
    if not remote.user:
        return f"Bearer {remote.token}"
    return f"Basic {b64encode(f'{remote.user}:{remote.token}'.encode()).decode()}"  # RFC 7617


def _origin(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
