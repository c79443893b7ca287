"""Listening to a child. Everything that comes out of it is data of a stranger.

Lines have a longest length, all of them together a largest volume, and control characters are escaped
before a log, a terminal or a page can show them.
"""

import json
import re
from collections import deque
from math import isfinite
from typing import Any

from controlplane.core.sandbox import isolation
from controlplane.core.sandbox.limits import MIB
from controlplane.core.sandbox.outcome import Evidence, Message, Refusal

MAX_LOG_BYTES = 10 * MIB
MAX_LOG_LINE = 2000
MAX_NAME = 40
MAX_VALUES = 4
MAX_STEP = 2**31 - 1
MAX_MESSAGE_BYTES = 16 * MIB
MAX_MESSAGES_BYTES = 128 * MIB
LOG_TAIL_LINES = 20
_LEAST_LINE_BYTES = 64
"""A line counts as at least this much, so that empty ones cannot fill the parent's memory or a table."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")


def escaped(text: str) -> str:
    """One line that a terminal and a page can show: ANSI, NUL and direction overrides are escaped."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def printable(text: str) -> str:
    """The same, of a bounded length."""
    line = escaped(text)
    return line if len(line) <= MAX_LOG_LINE else line[:MAX_LOG_LINE] + "…"


def _point(message: dict[str, Any]) -> dict[str, Any]:
    """A point of a curve, with nothing else in it. Raises ValueError, KeyError, TypeError or OverflowError for what is
    none."""
    step = int(message["step"])
    values = {
        printable(str(name))[:MAX_NAME]: float(value) for name, value in dict(message["values"]).items()
    }
    if (
        not 0 <= step <= MAX_STEP
        or not 0 < len(values) <= MAX_VALUES
        or not all(map(isfinite, values.values()))
    ):
        raise ValueError("not a point")
    return {
        "kind": "point",
        "curve": printable(str(message["curve"]))[:MAX_NAME],
        "step": step,
        "values": values,
    }


class Lines:
    """Cuts a byte stream into lines without ever holding more than about `longest` bytes of one."""

    def __init__(self, *, longest: int) -> None:
        self.longest = longest
        self.cut = False
        self._open: list[bytes] = []
        self._open_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        first, *others = data.replace(b"\r", b"\n").split(b"\n")
        lines = []
        self._add(first)
        for part in others:
            lines += self.end()
            self._add(part)
        if self._open_bytes > self.longest:
            self.cut = True
            lines += self.end()
        return lines

    def _add(self, part: bytes) -> None:
        if part:
            self._open.append(part)
            self._open_bytes += len(part)

    def end(self) -> list[bytes]:
        """The line that was begun, if any. Empty lines are dropped."""
        line = b"".join(self._open)
        self._open, self._open_bytes = [], 0
        return [line] if line else []


class Hearing:
    """Turns the child's two streams into messages (`heard`) and evidence of how it ended."""

    def __init__(self, evidence: Evidence) -> None:
        self.heard: deque[Message] = deque()
        self.tail: deque[str] = deque(maxlen=LOG_TAIL_LINES)
        self.isolation: dict[str, Any] = {}
        self._evidence = evidence
        self._message_lines = Lines(longest=MAX_MESSAGE_BYTES)
        self._output_lines = Lines(longest=MAX_LOG_LINE * 4)
        self._log_bytes = self._message_bytes = 0

    def output(self, data: bytes) -> None:
        """What the child printed; empty at the end of the stream."""
        for line in self._output_lines.feed(data) if data else self._output_lines.end():
            self._say(line.decode(errors="backslashreplace"), level="info")

    def channel(self, data: bytes) -> bool:
        """What came through the channel; empty at its end. False once the child broke the protocol."""
        for line in self._message_lines.feed(data) if data else self._message_lines.end():
            self._message_bytes += len(line)
            if self._evidence.broken_rule:
                break
            try:
                self._understand(line)
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                self._evidence.broken_rule = f"It did not keep to the protocol: {printable(str(error))}"
        return not self._evidence.broken_rule

    def _say(self, text: str, *, level: str) -> None:
        if self._log_bytes > MAX_LOG_BYTES:
            return
        self._log_bytes += max(len(text), _LEAST_LINE_BYTES)
        if self._log_bytes > MAX_LOG_BYTES:
            text = f"log truncated after {MAX_LOG_BYTES // MIB} MB"
        line = printable(text)
        self.tail.append(line)
        self.heard.append({"kind": "log", "level": level, "message": line})

    def _understand(self, line: bytes) -> None:
        """Raises ValueError, KeyError, TypeError or OverflowError for what is no message."""
        if self._message_lines.cut or self._message_bytes > MAX_MESSAGES_BYTES:
            raise ValueError("too many bytes")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise TypeError("not an object")
        match message["kind"]:
            case "hello":
                self.isolation = {"namespaces": list(message["namespaces"]), "files": bool(message["files"])}
                if lacking := isolation.missing(self.isolation, network=self._evidence.limits.network):
                    isolation.warn_once(lacking)
            case "exit":
                self._evidence.status = int(message["status"])
                self._evidence.peak_bytes = int(message["peak_bytes"])
            case "failed":
                self._evidence.failed = message
            case "log":
                self._say(str(message["message"]), level=printable(str(message.get("level", "info"))))
            case "step":
                self.heard.append(message | {"name": printable(str(message["name"]))})
            case "progress":
                self.heard.append(message | {"done": message["done"], "total": message["total"]})
            case "point":
                self.heard.append(_point(message))
            case "refused":
                texts = {name: printable(str(message[name])) for name in ("code", "title", "detail")}
                self._evidence.refusal = Refusal(**texts)
                self.heard.append(message | texts)
            case "result":
                if not isinstance(message["data"], dict):
                    raise TypeError("the result is not an object")
                self._evidence.result = message["data"]
                self.heard.append(message)
            case kind:
                raise ValueError(f"unknown kind {kind!r}")
