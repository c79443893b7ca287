"""One `up` per home. The kernel drops the lock with its holder, so a killed `up` blocks nobody."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from controlplane.embedded.errors import SetupError
from controlplane.embedded.home import Home


@contextmanager
def hold(home: Home) -> Iterator[None]:
    """Raises SetupError that names the process which holds the home."""
    descriptor = os.open(home.run / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode().strip() or "unknown"
            raise SetupError(
                "already_running",
                f"Another `up` (process {holder}) runs on SLIPWAY_HOME {home.root}: stop it, or set SLIPWAY_HOME "
                "to another folder.",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
