"""A replica's lines as people read them. Its own are JSON objects; a crash or a library writes what it likes."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
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


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """A line with an id by which a reader asks for what came after it."""

    id: int
    at: datetime | None
    level: str
    message: str


def numbered(texts: Sequence[str]) -> list[Numbered]:
    """The last lines of a log, oldest first, with ids that grow and stay the same while the window moves on.

    A target hands out text, not numbers: an id is the line's own millisecond times 1000, or one more than the line
    before it, which also counts the lines without a time. Only a window that begins inside one millisecond, or
    whose lines are out of order, could number a line anew.
    """
    found: list[Numbered] = []
    last = 0
    for text in texts:
        line = read(text)
        at = _moment(line.at)
        last = max(last + 1, int(at.timestamp() * 1000) * 1000 if at else 0)
        found.append(Numbered(id=last, at=at, level=line.level, message=line.message))
    return found


def _moment(text: str) -> datetime | None:
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else None
    return None


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
