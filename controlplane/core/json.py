"""JSON at the API's edge: orjson both ways, with the refusals that a stock parser lacks.

Depth is capped before parsing (100,000 nested arrays overflow a recursive parser), and NUL characters and
lone surrogates are refused here because Postgres can store neither.
"""

import re
from collections.abc import Iterable, Mapping
from typing import IO, Any

import orjson
from django.conf import settings
from django.utils.http import parse_header_parameters
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from controlplane.core.errors import InvalidInput, TooLarge, UnsupportedMediaType

MAX_DEPTH = 32
_STRINGS = re.compile(rb'"[^"]*"?')
_NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))


def _without_backslashes(body: bytes) -> bytes:
    """Escaped backslashes are dropped, so that every backslash left escapes what follows it."""
    return body.replace(b"\\\\", b"")


def depth(body: bytes) -> int:
    """The deepest nesting of brackets outside strings, without recursion; counting stops beyond MAX_DEPTH.

    Linear in any body: a string that never ends is taken to the end, not tried again from each of its quotes.
    """
    brackets = _STRINGS.sub(b"", _without_backslashes(body).replace(b'\\"', b"")).translate(
        None, _NOT_BRACKETS
    )
    deepest = level = 0
    for byte in brackets:
        level += 1 if byte in b"[{" else -1
        if level > deepest:
            deepest = level
            if deepest > MAX_DEPTH:
                break
    return deepest


def loads(body: bytes) -> Any:
    """Raises InvalidInput that says where the JSON breaks and why it is refused."""
    if depth(body) > MAX_DEPTH:
        raise InvalidInput(
            "json_too_deep", "The JSON is nested too deeply.", f"At most {MAX_DEPTH} levels are read."
        )
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("invalid_json", "The body is not valid JSON.", str(error)) from error
    if b"\\u0000" in _without_backslashes(body):
        raise InvalidInput(
            "nul_character", "The JSON contains a NUL character.", "Remove \\u0000 from the strings."
        )
    return value


class Negotiation(DefaultContentNegotiation):
    """A body's type is one of the view's, to the letter: DRF lets `*/*` and any charset through."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        kind, parameters = parse_header_parameters(request.content_type)
        charset = parameters.get("charset", "utf-8").lower()
        if charset not in {"utf-8", "utf8"}:
            raise UnsupportedMediaType(
                "unsupported_charset", "This charset is not read here.", "Send the body as UTF-8."
            )
        types = {parser.media_type: parser for parser in parsers}
        if kind not in types:
            given = f"“{kind[:60]}”" if kind else "none"
            raise UnsupportedMediaType(
                "unsupported_media_type",
                "This content type is not read here.",
                f"The request has {given}; send “Content-Type: {'” or “'.join(map(str, types))}”.",
            )
        return types[kind]


class StrictJSONParser(BaseParser):
    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """What announces itself as too large is refused unread: waiting for it would hold a thread. What ends
        before its announced length was cut, also where the rest happens to be JSON."""
        limit, announced = settings.DATA_UPLOAD_MAX_MEMORY_SIZE, _announced_bytes(parser_context)
        if announced > limit or len(body := stream.read(limit + 1)) > limit:
            raise TooLarge(
                "body_too_large", "The JSON body is too large.", f"At most {limit:,} bytes are read."
            )
        if len(body) < announced:
            raise InvalidInput(
                "short_body",
                "The body ended early.",
                f"{len(body):,} of {announced:,} announced bytes arrived. Send it again.",
            )
        return loads(body)


def _announced_bytes(parser_context: Mapping[str, Any] | None) -> int:
    text = parser_context["request"].META.get("CONTENT_LENGTH", "") if parser_context else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


class JSONRenderer(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        return b"" if data is None else orjson.dumps(data, default=str)
