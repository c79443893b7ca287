"""A replica's lines as people read them. Its own are JSON objects; a crash or a library writes what it likes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_BESIDE = frozenset({"at", "level", "event", "deployment", "revision", "replica"})


@dataclass(frozen=True, kw_only=True)
class Line:
    """`at` is ISO 8601 or empty."""

    at: str
    level: str
    message: str


def read(text: str) -> Line:
    document = _own(text)
    if document is None:
        return Line(at="", level="info", message=text)
    rest = " ".join(f"{name}={value}" for name, value in document.items() if name not in _BESIDE)
    return Line(
        at=str(document.get("at", "")),
        level=str(document.get("level", "info")),
        message=f"{document['event']} {rest}".strip(),
    )


def last_error(tail: Sequence[str]) -> str:
    """What the last line of level error says is wrong; empty where no line does."""
    for text in reversed(tail):
        document = _own(text)
        if document is not None and document.get("level") == "error":
            return str(document.get("error") or document["event"])
    return ""


def _own(text: str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) and "event" in document else None
