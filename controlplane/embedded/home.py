"""Where one installation keeps what it owns: data, sockets, logs, and the files that say what runs.

Refused: a fixed folder under /var or the user's home. Two clones of the product on one machine share
nothing, and removing the folder removes everything.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from controlplane.embedded.errors import SetupError

LONGEST_SOCKET_NAME = len("/.s.PGSQL.5432.lock")
SOCKET_PATH_LIMIT = 107


@dataclass(frozen=True, kw_only=True)
class Home:
    """The folders below SLIPWAY_HOME that the embedded parts own."""

    root: Path

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def valkey(self) -> Path:
        return self.root / "valkey"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets.json"

    @property
    def sockets(self) -> Path:
        """The run folder, or where its path is too long for a Unix socket, a short one of its own."""
        if len(os.fsencode(self.run)) + LONGEST_SOCKET_NAME <= SOCKET_PATH_LIMIT:
            return self.run
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"slipway-{os.geteuid()}-{digest}"

    def prepare(self) -> None:
        """Makes the folders, closed to other users. Raises SetupError where this user may not."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for folder in (self.run, self.log, self.valkey, self.sockets):
                folder.mkdir(mode=0o700, exist_ok=True)
            found = self.sockets.lstat()
        except OSError as error:
            raise SetupError(
                "home_not_writable",
                f"SLIPWAY_HOME {self.root} cannot be written to ({error.strerror}): "
                "point SLIPWAY_HOME at a folder that this user owns.",
            ) from error
        # The fallback lies in a folder that others can write to, so somebody may have made it first.
        if (
            not stat.S_ISDIR(found.st_mode)
            or found.st_uid != os.geteuid()
            or stat.S_IMODE(found.st_mode) & 0o077
        ):
            raise SetupError(
                "socket_folder_unsafe",
                f"The socket folder {self.sockets} belongs to somebody else or is open to others: remove it.",
            )

    def clear_sockets(self) -> None:
        """Removes the short socket folder, which would otherwise stay when the home is removed."""
        if self.sockets != self.run:
            shutil.rmtree(self.sockets, ignore_errors=True)


def write_private(path: Path, text: str) -> None:
    """Replaces the file at once; nobody else can read it, and no reader sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
