"""Real servers for the whole run: embedded Postgres and Valkey in a folder of the run's own.

A plug-in that `addopts` loads first, because Django's settings name the servers. With xdist the controller starts
them once and the workers inherit the addresses; each worker has a database of its own.
"""

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

_HOME = "SLIPWAY_TEST_HOME"
_running = ExitStack()


def _start_servers() -> None:
    from controlplane.embedded.runtime import start_servers

    home = Path(tempfile.mkdtemp(prefix="slipway-test-"))
    (home / "home").mkdir()
    vendor = Path(__file__).resolve().parents[1] / ".slipway" / "vendor"
    if vendor.is_dir():
        (home / "home" / "vendor").symlink_to(vendor)
    _running.callback(shutil.rmtree, home, ignore_errors=True)
    started = _running.enter_context(start_servers(home / "servers", durable=False))
    os.environ |= {
        _HOME: str(home),
        "SLIPWAY_HOME": str(home / "home"),
        "DATABASE_URL": started.database_url,
        "REDIS_URL": started.redis_url,
        "SLIPWAY_SECRET_KEY": "for-tests-only-" + "x" * 50,
    }


def stop() -> None:
    """Stops what this process started; nothing in a process that inherited the servers."""
    _running.close()


if _HOME not in os.environ:
    _start_servers()


def pytest_unconfigure() -> None:
    stop()
