"""How every child of `up` is started: in its own group, with a death signal, and with no secret it does not read."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from controlplane.embedded.procfs import MARK

LAUNCHER = Path(__file__).with_name("launch.py")
INSTALLATION = (
    "SLIPWAY_HOME",
    "SLIPWAY_SECRET_KEY",
    "SLIPWAY_ADDRESS",
    "SLIPWAY_DATA_PORT",
    "SLIPWAY_NODE_URL",
    "SLIPWAY_NODE_TOKEN",
    "DATABASE_URL",
    "REDIS_URL",
)
"""The variables by which one installation differs from another; several are secrets."""
IMPORT_TOKENS = ("SLIPWAY_HF_TOKEN", "SLIPWAY_MLFLOW_USER", "SLIPWAY_MLFLOW_TOKEN")
KEDA_TOKEN = "SLIPWAY_KEDA_TOKEN"  # noqa: S105  the name of a variable
TOKENS = (*IMPORT_TOKENS, KEDA_TOKEN)
"""What the operator's environment has for one process alone."""


def child_environment(*, home: Path, values: Mapping[str, str], reads: Sequence[str]) -> dict[str, str]:
    """The operator's environment, less what the child does not read, plus what it does and the mark."""
    withheld = {*INSTALLATION, *TOKENS} - ({*reads} & {*TOKENS})
    inherited = {name: value for name, value in os.environ.items() if name not in withheld}
    return inherited | {name: values[name] for name in reads if name in values} | {MARK: str(home)}


def spawn(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path,
    stdout: int,
    stdin: int = subprocess.DEVNULL,
    death_signal: signal.Signals = signal.SIGKILL,
    run_as: int | None = None,
) -> subprocess.Popen[bytes]:
    """Starts the child as leader of a new session. Call it from a thread that outlives the child.

    stderr goes where stdout goes; stdin is empty unless given. A child that cannot be executed exits with code 1.
    """
    launcher = [sys.executable, "-ISs", str(LAUNCHER), str(int(death_signal)), str(os.getpid())]
    return subprocess.Popen(
        [*launcher, "-" if run_as is None else str(run_as), *argv],
        env=dict(environment),
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
