"""Environments of the peers that benchmarks measure against, below `.slipway/peers`, each with packages of its own.

What a peer needs is pinned where it is used. What that needs in turn is resolved as the index was on one day, so that
the same comes out later. Refused: locks with hashes as the product has them, thousands of lines for what no user runs.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from controlplane.settings.environment import REPOSITORY
from install.bootstrap import Project, find_uv

AS_OF = "2026-11-24"
FOLDER = REPOSITORY / ".slipway/peers"


class PeerMissing(Exception):
    """It cannot be had or does not run; with its own last words."""


def environment(name: str, packages: Sequence[str], *, dependencies: bool = True) -> Path:
    """The interpreter of an environment with these packages and, unless told otherwise, what they depend on.

    Made once, and again when what is asked changes. Raises PeerMissing. Cost: minutes and gigabytes the first time.
    """
    folder = FOLDER / name
    python, stamp = folder / "bin/python", folder / "slipway-packages"
    wanted = "\n".join([AS_OF, *packages])
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    uv = find_uv(Project(root=REPOSITORY, home=REPOSITORY / ".slipway"))
    if uv is None:
        raise PeerMissing("there is no uv to make an environment with (make up)")
    say(f"making the environment of {name}: minutes, once")
    base = ["--quiet", "--no-python-downloads", "--python"]
    last_words([uv, "venv", "--clear", *base, sys.executable, str(folder)])
    alone = [] if dependencies else ["--no-deps"]
    last_words([uv, "pip", "install", "--exclude-newer", AS_OF, *alone, *base, str(python), *packages])
    stamp.write_text(wanted)
    return python


def last_words(command: Sequence[str], *, within_s: float = 1800) -> str:
    """The last line that it prints. Raises PeerMissing with the last that it complains of."""
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=within_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissing(str(error)) from error
    if done.returncode:
        complaint = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise PeerMissing(complaint[:300])
    return (done.stdout.strip().splitlines() or [""])[-1]


def say(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)
