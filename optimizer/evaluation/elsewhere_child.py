"""The process of `elsewhere`: opens one model and answers what it is asked."""

import gc
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from controlplane.core.errors import SlipwayError
from optimizer.evaluation import machine
from optimizer.workbench.formats import open_as
from optimizer.workbench.session import first_line


def main(line: str) -> None:
    """`line` is the number of the connection's file."""
    asked, here = Connection(int(line)), Here()
    while True:
        try:
            what, given = asked.recv()
        except EOFError:
            return
        try:
            answer = getattr(here, what)(**given)
        except Exception as error:  # noqa: BLE001  whatever a runtime raises is told to who asked
            asked.send((False, told(error)))
        else:
            asked.send((True, answer))


class Here:
    """What can be asked. Everything is answered in turn."""

    def __init__(self) -> None:
        self.session: Any = None
        self.kept: list[tuple[list[str], list[dict[str, Any]]]] = []

    def open(self, format: str, path: str, threads: int) -> dict[str, str]:
        """Answers the versions of what it is open with."""
        self.session = open_as(format, Path(path), threads=threads)
        return machine.describe().versions

    def run(self, outputs: list[str], feed: dict[str, Any]) -> list[Any]:
        return list(self.session.run(outputs, feed))

    def keep(self, outputs: list[str], feeds: list[dict[str, Any]]) -> int:
        self.kept.append((outputs, feeds))
        return len(self.kept) - 1

    def time(self, key: int, index: int, repeats: int) -> float:
        outputs, feeds = self.kept[key]
        feed = feeds[index % len(feeds)]
        start = time.perf_counter()
        for _ in range(repeats):
            self.session.run(outputs, feed)
        return time.perf_counter() - start

    def hold(self, cores: list[int]) -> None:
        if cores:
            machine.pin(cores)
        gc.collect()
        gc.disable()


def told(error: Exception) -> tuple[str, ...]:
    if isinstance(error, SlipwayError):
        return ("refused", error.code, error.title, error.detail)
    kind = {MemoryError: "memory", OSError: "os"}
    return (next((name for of, name in kind.items() if isinstance(error, of)), "other"), first_line(error))
