"""The whole product on ports and in a home of its own: `manage.py up` as a user would run it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controlplane.embedded.generated import generated
from controlplane.embedded.home import Home
from controlplane.embedded.runtime import Up, running
from controlplane.settings.environment import REPOSITORY

READY_WITHIN_S = 90
THEIRS = {"DATABASE_URL", "REDIS_URL", "SLIPWAY_SECRET_KEY", "SLIPWAY_NODE_URL", "SLIPWAY_NODE_TOKEN"}


class Product:
    """A running `up` of the tests' own."""

    def __init__(self, home: Path, up: Up) -> None:
        self.home = home
        self.up = up

    @property
    def url(self) -> str:
        return self.up.url.rstrip("/")

    @property
    def password(self) -> str:
        return generated(Home(root=self.home)).admin_password

    def manage(self, *arguments: str) -> str:
        """Runs a management command against it and returns what it printed."""
        environment = {name: value for name, value in os.environ.items() if name not in THEIRS}
        environment |= {"SLIPWAY_HOME": str(self.home)}
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def token(self) -> str:
        """A token of the admin, made in the database."""
        code = (
            "from datetime import timedelta; from controlplane.accounts.models import *; "
            "user = User.objects.get(username='admin'); team = user.teams.get(); "
            "made = ApiToken.objects.issue(user=user, team=team, role='admin', name='t', expiry=timedelta(days=1)); "
            "print(made[1])"
        )
        return self.manage("shell", "-v", "0", "-c", code).split()[-1]


def start(command: str, *, home: Path, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """`manage.py up` or `demo` on this home and on free ports. What it says is added to the log."""
    inherited = {name: value for name, value in os.environ.items() if name not in THEIRS}
    mine = {"SLIPWAY_HOME": str(home), "SLIPWAY_ADDRESS": "127.0.0.1:0", "SLIPWAY_DATA_PORT": "0"}
    with log.open("ab") as writing:
        return subprocess.Popen(
            [sys.executable, "manage.py", command],
            cwd=REPOSITORY,
            env=inherited | mine | environment,
            stdout=writing,
            stderr=subprocess.STDOUT,
        )


@contextmanager
def running_product(command: str = "up", **environment: str) -> Iterator[Product]:
    """`manage.py up` (or `demo`) until the block ends; then it is stopped as Ctrl-C would."""
    root = Path(tempfile.mkdtemp(prefix="slipway-product-"))
    home = root / "home"
    home.mkdir()
    vendor = REPOSITORY / ".slipway" / "vendor"
    if vendor.is_dir():
        (home / "vendor").symlink_to(vendor)
    process = start(command, home=home, log=root / "up.log", **environment)
    try:
        yield Product(home, _ready(process, home, root / "up.log"))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        shutil.rmtree(root, ignore_errors=True)


def _ready(process: subprocess.Popen[bytes], home: Path, log: Path) -> Up:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        up = running(home)
        if up is not None and up.ready:
            return up
        time.sleep(0.2)
    raise AssertionError(f"up did not get ready:\n{log.read_text()[-4000:]}")
