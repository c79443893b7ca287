"""Uploaded bytes, however they come: a raw body that is streamed, or the file of a form."""

import re
from collections.abc import Iterator
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest
from rest_framework.parsers import BaseParser

from controlplane.core.errors import InvalidInput
from controlplane.core.json import JSONRenderer

CHUNK_BYTES = 1024**2
_SHA256 = re.compile(r"[0-9a-f]{64}")


class RawBody(BaseParser):
    """Accepts any bytes and leaves them unread: the view streams them."""

    media_type = "application/octet-stream"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> dict[str, Any]:
        return {}


class Bytes(JSONRenderer):
    """Lets a client ask for bytes; what is refused is told in JSON all the same."""

    media_type = "application/octet-stream"
    format = "bytes"


def raw_chunks(request: HttpRequest) -> Iterator[bytes]:
    """The body as it arrives. A chunked body has no length, so it is read past Django's length limit.

    The server reports a chunked body that was cut as one that ended. Formats that know their own length are
    refused then; whoever wants to be sure sends `X-Content-SHA256`.
    """
    chunked = request.headers.get("Transfer-Encoding", "").lower() == "chunked"
    source = request.environ["wsgi.input"] if chunked and "wsgi.input" in request.META else request  # type: ignore[attr-defined]
    while chunk := source.read(CHUNK_BYTES):
        yield chunk


def declared_bytes(request: HttpRequest) -> int | None:
    length = request.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdecimal() else None


def declared_sha256(request: HttpRequest) -> str | None:
    """The digest that the client expects (`X-Content-SHA256`). Raises InvalidInput for another kind of digest."""
    text = request.headers.get("X-Content-SHA256")
    if text is None:
        return None
    if _SHA256.fullmatch(text) is None:
        raise InvalidInput(
            "invalid_digest",
            "X-Content-SHA256 is not a SHA-256 digest.",
            "Send 64 lower-case hexadecimal digits, as `sha256sum` prints them.",
        )
    return text


def form_file(data: Any) -> "UploadedFile[Any]":
    """The form's `file`. Raises InvalidInput when there is none."""
    found = data.get("file")
    if not isinstance(found, UploadedFile):
        raise InvalidInput(
            "no_file",
            "The form has no file.",
            "Send the file in the field “file”.",
            fields={"file": ["Choose a file."]},
        )
    return found
