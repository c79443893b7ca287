"""POST .../infer: the one path that is hot.

It is a bare ASGI endpoint inside the FastAPI app: building FastAPI's Request and validating with pydantic costs
more than a small model does. Everything is refused as early as it can be told: the key before the body, the
length before the bytes.
"""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from controlplane.core.errors import InvalidInput, SlipwayError, TooLarge, UnsupportedMediaType
from deployments.stacks.fastapi.batcher import Batcher, Outputs
from deployments.stacks.fastapi.errors import (
    Abandoned,
    InferenceFailed,
    Reason,
    Unauthorized,
    not_ready,
    reason_of,
    render,
    unknown_model,
)
from deployments.stacks.fastapi.protocol import Answer, Request
from deployments.stacks.fastapi.service import Service

type Headers = Mapping[bytes, bytes]
type HeaderList = list[tuple[bytes, bytes]]

_failures = logging.getLogger("slipway.replica.failures")
_MEDIA_TYPES = (b"application/json", b"application/octet-stream")
# The status nginx gave to "the client closed the request"; it is counted and never sent.
_CLIENT_CLOSED = 499
# A client that leaves sooner than this is not noticed before its request runs; watching for it would cost
# every request a task.
_WATCH_AFTER_S = 0.02


class Infer:
    """ASGI endpoint; expects `model` and maybe `version` among the path parameters."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._service.came()
        try:
            await self._serve(scope, receive, send)
        finally:
            self._service.went()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        metrics = self._service.metrics
        try:
            answer, received = await self._answer(scope, receive)
        except Abandoned:
            metrics.refused(_CLIENT_CLOSED, Reason.CANCELLED)
        except SlipwayError as error:
            metrics.refused(error.status, reason_of(error))
            body, headers = render(error)
            await self._send(send, error.status, body, headers)
        except Exception:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the cause
            _failures.exception("request_failed")
            ours = InferenceFailed(
                "internal_error", "This request could not be answered.", "The log says why."
            )
            metrics.refused(ours.status, Reason.INFERENCE_FAILED)
            await self._send(send, ours.status, *render(ours))
        else:
            metrics.served(time.monotonic() - received)
            await self._send(send, 200, answer.body, _headers_of(answer))

    async def _send(self, send: Send, status: int, body: bytes, headers: HeaderList) -> None:
        headers.append((b"content-length", str(len(body)).encode()))
        if self._service.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[Answer, float]:
        """The answer, and when the request had been received whole."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        config = self._service.config
        authorize(headers, api_key_sha256=config.api_key_sha256)
        check_model(scope["path_params"], model=config.model_name, version=config.model_version)
        check_media_type(headers)
        header_length = _length(headers, b"inference-header-content-length")
        batcher = self._service.batcher
        if batcher is None:
            raise not_ready()
        body = await read_body(
            receive, declared=_length(headers, b"content-length"), limit=config.max_body_bytes
        )
        received = time.monotonic()
        request = self._service.codec.parse(body, header_length=header_length)
        if request.rows is not None and request.rows > config.batching.max_batch_size:
            raise InvalidInput(
                "batch_too_large",
                "The request has more rows than one batch may have.",
                f"It has {request.rows:,}, max_batch_size is {config.batching.max_batch_size:,}. Send it in parts.",
            )
        outputs = await self._infer(batcher, request, receive)
        return self._service.codec.answer(request, outputs), received

    async def _infer(self, batcher: Batcher, request: Request, receive: Receive) -> Outputs:
        item = batcher.enqueue(request)
        loop = asyncio.get_running_loop()
        watcher: asyncio.Task[None] | None = None

        async def watch() -> None:
            # The body has been read, so the only message left is that the client has gone.
            await receive()
            batcher.abandon(item)

        def start_watching() -> None:
            nonlocal watcher
            watcher = loop.create_task(watch())

        timer = loop.call_later(_WATCH_AFTER_S, start_watching)
        try:
            outputs: Outputs = await item.answer
        except asyncio.CancelledError:
            batcher.abandon(item)
            raise
        except Abandoned:
            raise
        except Exception as error:
            raise self._failed(error) from error
        finally:
            timer.cancel()
            if watcher is not None:
                watcher.cancel()
        return outputs

    def _failed(self, error: Exception) -> InferenceFailed:
        """The runtime's own words go to the log: they name files and nodes."""
        _failures.error("inference_failed", extra={"error": f"{type(error).__name__}: {error}"[:2000]})
        if isinstance(error, MemoryError):
            return InferenceFailed("out_of_memory", "There is not enough memory for this request.")
        detail = "The model refused these values, or failed on them. The replica's log says why."
        return InferenceFailed("inference_failed", "The model failed on this request.", detail)


def _headers_of(answer: Answer) -> HeaderList:
    if answer.header_length is None:
        return [(b"content-type", b"application/json")]
    return [
        (b"content-type", b"application/octet-stream"),
        (b"inference-header-content-length", str(answer.header_length).encode()),
    ]


def authorize(headers: Headers, *, api_key_sha256: str | None) -> None:
    """Raises Unauthorized unless the key in `Authorization: Bearer` or `X-API-Key` has that digest."""
    if api_key_sha256 is None:
        return
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    key = token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
    if not hmac.compare_digest(hashlib.sha256(key).hexdigest(), api_key_sha256):
        detail = "Send the deployment's key as “Authorization: Bearer KEY” or “X-API-Key: KEY”."
        raise Unauthorized("invalid_api_key", "This endpoint needs its API key.", detail)


def check_model(path: Mapping[str, Any], *, model: str, version: str) -> None:
    """Raises NotFound unless the path names the model, and its version if any, that is served here."""
    if path["model"] != model:
        raise unknown_model(path["model"], serving=model)
    if path.get("version", version) != version:
        raise unknown_model(f"{model} version {path['version']}", serving=f"{model} version {version}")


def check_media_type(headers: Headers) -> None:
    """Clients of the protocol often send no content type at all, so none is fine; another one is not."""
    media_type, _, parameters = headers.get(b"content-type", b"").lower().partition(b";")
    charset = parameters.strip()
    if media_type.strip() and media_type.strip() not in _MEDIA_TYPES:
        detail = f"Send application/json or application/octet-stream, not {media_type.strip()[:60].decode('latin-1')}."
        raise UnsupportedMediaType("unsupported_media_type", "This content type is not understood.", detail)
    if charset.startswith(b"charset") and charset.partition(b"=")[2].strip(b' "') not in (b"utf-8", b"utf8"):
        raise UnsupportedMediaType("unsupported_charset", "JSON is UTF-8 here.", "Leave the charset out.")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType(
            "unsupported_encoding", "Compressed bodies are not taken.", "Send it plain."
        )


def _length(headers: Headers, name: bytes) -> int | None:
    value = headers.get(name)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise InvalidInput("invalid_header", f"{name.decode()} is not a length.", "Send a count of bytes.")
    return int(value)


async def read_body(receive: Receive, *, declared: int | None, limit: int) -> bytes:
    """Raises TooLarge before a declared excess is read and as soon as an undeclared one is seen."""
    if declared is not None and declared > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Abandoned
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> TooLarge:
    return TooLarge("body_too_large", "The request is too large.", f"At most {limit:,} bytes are taken.")
