"""One process that may outlive its parent: spawned in a session of its own, adopted by pid and start time.

Its end is seen through a pidfd within a millisecond, for a child and for an adopted process alike. Refused:
asyncio's subprocesses (they cannot adopt), and polling pid files (slow, and a pid is given out again).
"""

import asyncio
import contextlib
import os
import re
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_LONGEST_LINE = 2000
_BEHIND = 10
"""A tenth of the weight of a session that does not step back."""


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when it is gone or only waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name stands in parentheses and may contain anything, so fields count from the last one.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def started_from(folder: Path, file: str) -> list[int]:
    """Living leaders of a session with an argument that is a `file` somewhere below `folder`.

    The session tells what was spawned here from an editor that has the file open.
    """
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [
        pid
        for pid in pids
        if any(one.startswith(f"{folder}/") and one.endswith(f"/{file}") for one in command_line(pid))
        and start_ticks(pid) is not None
        and _session(pid) == pid
    ]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _set_session_nice(pid: int, nice: int) -> None:
    """Weighs the process's session against the others (sched(7), autogroup); nothing where the kernel has none.

    Refused: the nice value of the process itself, which a user who is not root can raise but never lower again.
    """
    with contextlib.suppress(OSError):
        file = Path(f"/proc/{pid}/autogroup")
        if not file.read_text().endswith(f" nice {nice}\n"):
            file.write_text(str(nice))


class Process:
    """A running process. `exited` is done, with the reason in words, once it has ended."""

    def __init__(self, pid: int, *, child: "subprocess.Popen[bytes] | None") -> None:
        self.pid = pid
        self.ticks = start_ticks(pid) or 0
        self._child = child
        self._pidfd = os.pidfd_open(pid)
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[str] = loop.create_future()
        loop.add_reader(self._pidfd, self._end)

    @classmethod
    def spawn(
        cls, command: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path
    ) -> "Process":
        """Starts it in its own session, with both outputs appended to `log`. Raises OSError."""
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(child.pid, child=child)

    @classmethod
    def adopt(cls, pid: int, *, ticks: int, naming: Path) -> "Process | None":
        """The living process that was recorded so, or None. `naming` must stand in its command line."""
        if start_ticks(pid) != ticks or not any(str(naming) in argument for argument in command_line(pid)):
            return None
        try:
            return cls(pid, child=None)
        except OSError:
            return None

    def limit_memory(self, size_bytes: int) -> None:
        """Caps what it may allocate. Its data, not its address space: code and mapped files are shared."""
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(self.pid, resource.RLIMIT_DATA, (size_bytes, size_bytes))

    def step_back(self) -> None:
        """Gives way to everything else on the machine until `step_forward`."""
        _set_session_nice(self.pid, _BEHIND)

    def step_forward(self) -> None:
        """Ends `step_back`. To be repeated: the kernel takes such a change from a user only every 0.1 s."""
        _set_session_nice(self.pid, 0)

    def send(self, number: signal.Signals) -> None:
        """Signals exactly this process, never one that was given its pid later."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def stop(self, *, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after the grace; returns when it is gone."""
        self.send(signal.SIGTERM)
        await asyncio.wait({self.exited}, timeout=grace_s)
        self.send(signal.SIGKILL)
        await asyncio.wait({self.exited})

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        # What it started goes with it: the leader's pid still names the group until it is reaped below.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.exited.set_result(self._reason())
        os.close(self._pidfd)

    def _reason(self) -> str:
        if self._child is None:
            return "ended while it was adopted, so its exit code is not known"
        code = self._child.wait()
        return f"killed by signal {-code}" if code < 0 else f"exited with code {code}"


class LogFile:
    """The outputs of one process, capped: the writer appends, we cut.

    Cutting may lose a few lines that are written in that moment; a pipe through us would lose them all, and
    the process with them, whenever we die.
    """

    def __init__(self, path: Path, *, cap_bytes: int = 1024**2) -> None:
        self.path = path
        self._cap_bytes = cap_bytes

    @property
    def _older(self) -> Path:
        return self.path.with_suffix(".old")

    def trim(self) -> None:
        """Keeps the file below its cap; what was before stays readable in one older file."""
        with contextlib.suppress(OSError):
            if self.path.stat().st_size > self._cap_bytes:
                self._older.write_bytes(self._end(self.path, self._cap_bytes // 2))
                os.truncate(self.path, 0)

    def begin(self) -> None:
        """Sets the lines of an earlier process aside."""
        with contextlib.suppress(OSError):
            self.path.replace(self._older)

    def tail(self, lines: int) -> tuple[str, ...]:
        """The last lines, as text that can be stored and shown anywhere (no control characters)."""
        return _lines(self._end(self._older, 2**18) + self._end(self.path, 2**18), lines)

    def tail_of_this_process(self, lines: int) -> tuple[str, ...]:
        return _lines(self._end(self.path, 2**18), lines)

    @staticmethod
    def _end(path: Path, size_bytes: int) -> bytes:
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - size_bytes))
                found = file.read(size_bytes)
        except OSError:
            return b""
        # A line that was cut in two is no line.
        return found if size <= size_bytes else found.partition(b"\n")[2]


def _lines(text: bytes, count: int) -> tuple[str, ...]:
    found = text.decode(errors="replace").splitlines()[-count:] if count > 0 else []
    return tuple(_CONTROL.sub("", line)[:_LONGEST_LINE] for line in found)
