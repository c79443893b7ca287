"""Run by path in a fresh process of another toolchain: opens one model and answers what `elsewhere` asks.

Inside the sandbox the folder of our packages cannot be listed by a process that starts there, so they are loaded by
their paths; what is in them can be.
"""

import gc
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def load_package(name: str) -> None:
    folder = Path(__file__).resolve().parents[2] / name
    found = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert found is not None
    assert found.loader is not None
    sys.modules[name] = module = module_from_spec(found)
    found.loader.exec_module(module)


class Here:
    """What can be asked. Everything is answered in turn."""

    def __init__(self) -> None:
        self.session: Any = None
        self.kept: list[tuple[list[str], list[dict[str, Any]]]] = []

    def open(self, format: str, path: str, threads: int) -> dict[str, str]:
        """Answers the versions of what it is open with."""
        from optimizer.evaluation import machine
        from optimizer.workbench.formats import open_as

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
        from optimizer.evaluation import machine

        if cores:
            machine.pin(cores)
        gc.collect()
        gc.disable()


def told(error: Exception) -> tuple[str, ...]:
    from controlplane.core.errors import SlipwayError
    from optimizer.workbench.session import first_line

    if isinstance(error, SlipwayError):
        return ("refused", error.code, error.title, error.detail)
    kind = {MemoryError: "memory", OSError: "os"}
    return (next((name for of, name in kind.items() if isinstance(error, of)), "other"), first_line(error))


def main() -> None:
    line = Connection(int(sys.argv[1]))
    for name in ("controlplane", "optimizer"):
        load_package(name)
    here = Here()
    while True:
        try:
            what, given = line.recv()
        except EOFError:
            return
        try:
            answer = getattr(here, what)(**given)
        except Exception as error:  # noqa: BLE001  whatever a runtime raises is told to who asked
            line.send((False, told(error)))
        else:
            line.send((True, answer))


if __name__ == "__main__":
    main()
