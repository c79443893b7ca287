"""What the kernel says about processes: who lives, since when, in which group, started by which home.

A process is named by pid and start time together, because pids are reused. Children of `up` carry
`MARK` in their environment, so that a stray one is found whatever it is called and whoever adopted it.
Replicas and the data proxy get a clean environment from the node; they lead sessions of their own, and
their command line names a file in the node's folder.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "SLIPWAY_SUPERVISED"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """`started` counts clock ticks since boot."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: int


def look(pid: int) -> Seen | None:
    """None where no process has the pid, or only its exit code is left."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    state, parent, group, session, *rest = text.rpartition(")")[2].split()
    if state in "ZX":
        return None
    return Seen(
        pid=pid,
        state=state,
        parent=int(parent),
        group=int(group),
        session=int(session),
        started=int(rest[15]),
    )


def lives(pid: int, *, started: int) -> bool:
    seen = look(pid)
    return seen is not None and seen.started == started


def send(pid: int, number: signal.Signals) -> None:
    """Signals a process that may have ended since it was seen."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def everyone() -> Iterator[Seen]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (seen := look(int(entry.name))) is not None:
            yield seen


def is_marked(pid: int, *, home: Path) -> bool:
    """Whether this home's `up` started it, or what it started did."""
    return f"{MARK}={home}".encode() in _words(pid, "environ")


def serves(pid: int, *, home: Path) -> bool:
    """Whether it is a replica or the data proxy of this home's node."""
    folder = os.fsencode(home / "node") + b"/"
    seen = look(pid)
    return seen is not None and seen.session == pid and any(folder in word for word in _words(pid, "cmdline"))


def _words(pid: int, name: str) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().split(b"\0")
    except OSError:
        return []


def belonging(home: Path) -> tuple[int, ...]:
    """Everything that was started under this home's `up`, at any depth, except this process."""
    others = (seen.pid for seen in everyone() if seen.pid != os.getpid())
    return tuple(pid for pid in others if is_marked(pid, home=home) or serves(pid, home=home))


def members(group: int, *, home: Path) -> tuple[int, ...]:
    """The processes of a group that this home's `up` started."""
    return tuple(seen.pid for seen in everyone() if seen.group == group and is_marked(seen.pid, home=home))


def working_in(folder: Path) -> tuple[int, ...]:
    """The processes whose current folder this is: for a data folder, the postgres processes using it."""
    found = []
    for seen in everyone():
        try:
            if Path(f"/proc/{seen.pid}/cwd").readlink() == folder:
                found.append(seen.pid)
        except OSError:
            continue
    return tuple(found)


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "unknown"
