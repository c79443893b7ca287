"""A model that is open in a process of another toolchain, where one process cannot have both sides of a comparison.

That process times itself: what passes between the two is in no figure. While it works this one waits, so both can be
held on the same core. Both are in one sandbox and end together, and what they say to each other is theirs alone.
"""

import subprocess
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from controlplane.core.errors import Unprocessable
from optimizer.evaluation.start import command
from optimizer.workbench.signature import Array, Feed

CHILD = "optimizer.evaluation.elsewhere_child"
FAILURES: dict[str, type[Exception]] = {"memory": MemoryError, "os": OSError, "other": RuntimeError}


@dataclass(frozen=True, kw_only=True)
class Refused:
    """What the other process raised."""

    kind: str
    words: tuple[str, ...]

    def error(self) -> Exception:
        if self.kind == "refused":
            code, title, detail = self.words
            return Unprocessable(code, title, detail)
        return FAILURES[self.kind](*self.words)


class Elsewhere:
    """A session as `workbench.formats.Session`, opened by the interpreter `python`.

    Raises Unprocessable as the opener does, and RuntimeError with the first line of what else the runtime raises.
    """

    def __init__(self, python: Path, *, format: str, path: Path, threads: int) -> None:
        self._line, theirs = Pipe()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                command(CHILD, str(number), python=python), pass_fds=[number], stdin=subprocess.DEVNULL
            )
        self.close = weakref.finalize(self, _end, self._line, self._process)
        """Ends the process, as the end of this object does."""
        try:
            self.versions: dict[str, str] = self._ask("open", format=format, path=str(path), threads=threads)
        except Exception:
            self.close()
            raise

    def run(self, outputs: Sequence[str], feed: Feed) -> list[Array]:
        answers: list[Array] = self._ask("run", outputs=list(outputs), feed=feed)
        return answers

    def hold(self, cores: Sequence[int]) -> None:
        """On these cores from now on, without collecting garbage."""
        self._ask("hold", cores=list(cores))

    def arm(self, outputs: Sequence[str], feeds: Sequence[Feed]) -> "Arm":
        """One for the benchmark. The feeds are sent once."""
        key: int = self._ask("keep", outputs=list(outputs), feeds=list(feeds))
        return Arm(session=self, key=key)

    def _ask(self, what: str, **given: Any) -> Any:
        try:
            self._line.send((what, given))
            good, answer = self._line.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            status = self._process.wait()
            raise RuntimeError(f"The process that had the model open ended with {status}.") from error
        if not good:
            raise Refused(kind=answer[0], words=tuple(answer[1:])).error()
        return answer


def _end(line: Connection, process: "subprocess.Popen[bytes]") -> None:
    line.close()
    process.wait()


@dataclass(frozen=True, kw_only=True)
class Arm:
    """See `benchmark.TimesItself`."""

    session: Elsewhere
    key: int

    def __call__(self, index: int) -> None:
        self.timed(index, 1)

    def timed(self, index: int, repeats: int) -> float:
        seconds: float = self.session._ask("time", key=self.key, index=index, repeats=repeats)
        return seconds
