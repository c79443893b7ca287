"""The one readable log of `up`: every line prefixed with its process, on the terminal and in a file each.

Printing happens in a thread with a bounded queue. A terminal that is paused, or a pipe nobody reads,
costs lines on the terminal and never a restart.
"""

import contextlib
import queue
import sys
import threading
from pathlib import Path
from typing import IO

from controlplane.embedded.home import Home

FILE_LIMIT_BYTES = 5 * 1024**2
LINE_LIMIT_BYTES = 16 * 1024
QUEUE_LINES = 2000
COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
OWN_NAME = "up"


class LogFile:
    """Appends lines; at the size limit the file becomes `<name>.log.1` and a new one begins."""

    def __init__(self, path: Path, *, limit_bytes: int = FILE_LIMIT_BYTES) -> None:
        self._path = path
        self._limit = limit_bytes
        self._file: IO[bytes] = path.open("ab")

    def write(self, line: bytes) -> None:
        """Never raises: a full disk costs the log, not the process that logs."""
        try:
            if self._file.tell() > self._limit:
                self._file.close()
                self._path.replace(self._path.with_suffix(".log.1"))
                self._file = self._path.open("ab")
            self._file.write(line + b"\n")
            self._file.flush()
        except (OSError, ValueError):
            return

    def close(self) -> None:
        self._file.close()


class Journal:
    """Call `close` last; it waits a second at most for the terminal."""

    def __init__(self, *, home: Home, width: int, terminal: IO[str] | None = None) -> None:
        self._home = home
        self._width = width
        self._terminal = terminal or sys.stdout
        self._colour = self._terminal.isatty()
        self._files: dict[str, LogFile] = {}
        self._queue: queue.Queue[str | None] = queue.Queue(QUEUE_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._print, name="journal", daemon=True)
        self._thread.start()

    def line(self, name: str, text: bytes) -> None:
        if name not in self._files:
            self._files[name] = LogFile(self._home.log / f"{name}.log")
        self._files[name].write(text)
        shown = text.decode(errors="replace")
        try:
            if self._dropped:
                self._queue.put_nowait(
                    self._shape(OWN_NAME, f"{self._dropped} lines are only in the log files")
                )
                self._dropped = 0
            self._queue.put_nowait(self._shape(name, shown))
        except queue.Full:
            self._dropped += 1

    def say(self, text: str) -> None:
        self.line(OWN_NAME, text.encode())

    def show(self, text: str) -> None:
        """For the terminal alone: what may be read there but not kept in a file."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(text)

    def _shape(self, name: str, text: str) -> str:
        prefix = f"{name:<{self._width}} |"
        if self._colour:
            colour = 1 if name == OWN_NAME else COLOURS[sum(name.encode()) % len(COLOURS)]
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        return f"{prefix} {text}\n"

    def _print(self) -> None:
        while (text := self._queue.get()) is not None:
            try:
                self._terminal.write(text)
                if self._queue.empty():
                    self._terminal.flush()
            except (OSError, ValueError):  # the reader of our output went away: the files go on
                continue

    def close(self) -> None:
        try:
            self._queue.put(None, timeout=1)
        except queue.Full:
            return
        self._thread.join(1)
        for file in self._files.values():
            file.close()
