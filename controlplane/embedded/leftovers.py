"""Ends what a killed `up` left behind, before anything is started again.

Each child has a record in SLIPWAY_HOME/run with its pid and start time, so a reused pid is never
signalled. What the node started is left alone: replicas serve without us and are adopted.
"""

import json
import signal
import time
from pathlib import Path

from controlplane.embedded import procfs
from controlplane.embedded.home import Home, write_private

PATIENCE_S = 6.0
POLL_S = 0.02


def _record(home: Home, name: str) -> Path:
    return home.run / f"{name}.pid"


def remember(home: Home, *, name: str, pid: int, stop_signal: signal.Signals) -> None:
    seen = procfs.look(pid)
    if seen is not None:
        text = json.dumps({"pid": pid, "started": seen.started, "signal": stop_signal.name})
        write_private(_record(home, name), text)


def forget(home: Home, *, name: str) -> None:
    _record(home, name).unlink(missing_ok=True)


def kill_group(group: int, *, home: Home) -> None:
    """Kills what is left of a dead child's process group."""
    for pid in procfs.members(group, home=home.root):
        procfs.send(pid, signal.SIGKILL)


def kill_all(home: Home) -> None:
    """Kills everything that was started under this home, replicas included."""
    for pid in procfs.belonging(home.root):
        procfs.send(pid, signal.SIGKILL)


def stop_leftovers(home: Home) -> tuple[str, ...]:
    """Stops the recorded processes that still live, and returns their names. Takes PATIENCE_S at most."""
    alive: dict[str, tuple[int, int]] = {}
    groups: list[int] = []
    for path in sorted(home.run.glob("*.pid")):
        try:
            found = json.loads(path.read_text())
            pid, started, number = int(found["pid"]), int(found["started"]), signal.Signals[found["signal"]]
        except (ValueError, KeyError, TypeError):
            path.unlink()
            continue
        groups.append(pid)
        if procfs.lives(pid, started=started):
            alive[path.stem] = (pid, started)
            procfs.send(pid, number)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and any(
        procfs.lives(pid, started=born) for pid, born in alive.values()
    ):
        time.sleep(POLL_S)
    for pid, born in alive.values():
        if procfs.lives(pid, started=born):
            procfs.send(pid, signal.SIGKILL)
    for group in groups:
        kill_group(group, home=home)
    for path in home.run.glob("*.pid"):
        path.unlink()
    return tuple(alive)
