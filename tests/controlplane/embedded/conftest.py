"""A running `up` as the tests see it: a program with an output, a folder, and nothing else."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from controlplane.embedded import procfs
from controlplane.embedded.runtime import Up, running

REPOSITORY = Path(__file__).resolve().parents[3]
STANDIN = Path(__file__).with_name("standin.py")
WITHIN_S = 60.0


class Program:
    """One `up` of stand-ins, started through `wrapper`, a command that becomes the one it is given.

    `expect` waits for a line of its output; `stop` sends a signal and waits.
    """

    def __init__(
        self, home: Path, *, uid: int | None = None, wrapper: tuple[str, ...] = (), **environment: str
    ) -> None:
        self.home = home
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._read_to = 0
        inherited = {
            name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}
        }
        self.popen = subprocess.Popen(
            [*wrapper, sys.executable, str(STANDIN)],
            env=inherited
            | {"SLIPWAY_HOME": str(home), "SLIPWAY_ADDRESS": "127.0.0.1:0", "SLIPWAY_DATA_PORT": "0"}
            | {"PYTHONPATH": str(REPOSITORY)}
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **({} if uid is None else {"user": uid, "group": uid, "extra_groups": []}),
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def expect(self, pattern: str) -> re.Match[str]:
        """The next line, after those already expected, that matches."""
        deadline = time.monotonic() + WITHIN_S
        with self._changed:
            while True:
                for number in range(self._read_to, len(self.lines)):
                    if found := re.search(pattern, self.lines[number]):
                        self._read_to = number + 1
                        return found
                left = deadline - time.monotonic()
                if left < 0 or (self.popen.poll() is not None and not self._reader.is_alive()):
                    raise AssertionError(f"no line matches {pattern!r} in:\n" + "\n".join(self.lines))
                self._changed.wait(min(left, 0.2))

    def ready(self) -> Up:
        """Waits for the last that `up` says once everything runs: where it is, and the login."""
        self.expect(r"^up +\| Slipway is at http")
        self.expect(r"^    password  ")
        return self.state()

    def state(self) -> Up:
        up = running(self.home)
        assert up is not None
        return up

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.popen.wait(WITHIN_S)
        self._reader.join(WITHIN_S)
        if self.popen.stdout is not None:
            self.popen.stdout.close()
        return code

    def output(self) -> str:
        return "\n".join(self.lines)


def processes_of(home: Path) -> dict[int, str]:
    """Everything that runs for a home: it is in the environment, the argv or the current folder."""
    found = {}
    needle = str(home).encode()
    for seen in procfs.everyone():
        folder = Path("/proc") / str(seen.pid)
        try:
            texts = ((folder / "environ").read_bytes(), (folder / "cmdline").read_bytes())
            cwd = os.fsencode((folder / "cwd").readlink())
        except OSError:
            continue
        if seen.pid != os.getpid() and any(needle in text for text in (*texts, cwd)):
            found[seen.pid] = texts[1].replace(b"\0", b" ").decode(errors="replace")
    return found


def until[Value](look: Callable[[], Value | None], *, within_s: float = WITHIN_S) -> Value:
    """Looks until there is something to see."""
    deadline = time.monotonic() + within_s
    while True:
        value = look()
        if value:
            return value
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def home_folder() -> Iterator[Path]:
    """A folder with a space in its name that any user could own; whatever still runs for it is killed, and is a
    failure."""
    folder = Path(tempfile.mkdtemp(prefix="slipway up-"))
    folder.chmod(0o755)
    yield folder
    strays = processes_of(folder)
    for pid in strays:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)
    assert strays == {}


@pytest.fixture
def home() -> Iterator[Path]:
    with home_folder() as folder:
        yield folder


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., Program]]:
    with ExitStack() as stack:

        def begin(**options: object) -> Program:
            program = Program(home, **options)  # type: ignore[arg-type]
            stack.callback(program.stop)
            return program

        yield begin
