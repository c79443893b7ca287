"""Uploaded bytes, however they come: a raw body that is streamed, or the file of a form."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest
from rest_framework.parsers import BaseParser

from controlplane.core.errors import InvalidInput
from controlplane.core.json import JSONRenderer
from controlplane.core.problems import LengthRequired

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


class Html(JSONRenderer):
    """Lets a client ask for a page; what is refused is told in JSON all the same."""

    media_type = "text/html"
    format = "html"


@dataclass(frozen=True, kw_only=True)
class Announced:
    """What is said of a raw body before it comes. At least one of the two is known, so that a cut is noticed."""

    size_bytes: int | None
    sha256: str | None


def announced(request: HttpRequest) -> Announced:
    """From `Content-Length` and `X-Content-SHA256`.

    The server reports a chunked body that was cut on the way as one that ended, and what is left of a model may
    still be one. Raises LengthRequired where nothing would tell, InvalidInput for another kind of digest.
    """
    length = request.headers.get("Content-Length", "")
    size_bytes = int(length) if length.isascii() and length.isdecimal() else None
    if size_bytes is None and "Transfer-Encoding" not in request.headers:
        size_bytes = 0  # HTTP/1.1: without either there is no body
    sha256 = _declared_sha256(request)
    if size_bytes is None and sha256 is None:
        raise LengthRequired(
            "length_required",
            "The length of this body was not announced.",
            "Send Content-Length, or X-Content-SHA256 with a body that comes in chunks: "
            "without either, an upload that is cut off cannot be told from a whole one.",
        )
    return Announced(size_bytes=size_bytes, sha256=sha256)


def raw_chunks(request: HttpRequest) -> Iterator[bytes]:
    """The body as it arrives. A chunked body has no length, so it is read past Django's length limit."""
    chunked = request.headers.get("Transfer-Encoding", "").lower() == "chunked"
    source = request.environ["wsgi.input"] if chunked and "wsgi.input" in request.META else request  # type: ignore[attr-defined]
    while chunk := source.read(CHUNK_BYTES):
        yield chunk


def _declared_sha256(request: HttpRequest) -> str | None:
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
