"""Servers, a database and processes of a benchmark's own, started as the process table starts them.

Durable, unlike the tests' servers: a commit here costs what it costs a user. Refused: measuring inside this
process. What is measured runs in processes of its own, whose CPU can be told apart.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from controlplane.embedded.home import Home
from controlplane.embedded.ports import choose
from controlplane.embedded.processes import Process, Site, table
from controlplane.embedded.runtime import Servers, start_servers
from controlplane.settings.environment import REPOSITORY

READY_WITHIN_S = 30.0
STOP_WITHIN_S = 20.0


class DidNotStart(Exception):
    """With the last lines that it wrote."""


@dataclass(kw_only=True)
class Running:
    """A process of the benchmark; `log` is what it wrote."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def listens(self, port: int) -> Self:
        """Returns once the port takes connections. Raises DidNotStart."""
        deadline = time.monotonic() + READY_WITHIN_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return self
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise DidNotStart(self.log.read_text()[-2000:])
            time.sleep(0.05)

    def says(self, text: str) -> Self:
        """Returns once it has written the text. Raises DidNotStart."""
        deadline = time.monotonic() + READY_WITHIN_S
        while text not in (written := self.log.read_text(errors="replace")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise DidNotStart(written[-2000:])
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@dataclass(kw_only=True)
class Installation:
    """One home with its servers. What is started in it is stopped with it."""

    home: Path
    servers: Servers
    stack: ExitStack = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "SLIPWAY_HOME": str(self.home),
            "DATABASE_URL": self.servers.database_url,
            "REDIS_URL": self.servers.redis_url,
            "SLIPWAY_SECRET_KEY": "for-benchmarks-only-" + "x" * 50,
            "PYTHONPATH": str(REPOSITORY),
        }

    def start(self, *argv: str, name: str, **environment: str) -> Running:
        log = self.home / f"{name}.log"
        with log.open("wb") as writing:
            process = subprocess.Popen(
                argv,
                cwd=REPOSITORY,
                env=self.environment | environment,
                stdout=writing,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        running = Running(process=process, log=log)
        self.stack.callback(running.stop)
        return running

    def start_row(self, row: Process, *, argv: Sequence[str] = (), name: str = "") -> Running:
        """A row of the process table, or `argv` in its place with the row's variables."""
        return self.start(*(argv or row.argv), name=name or row.name, **row.environment)

    def ports(self, *names: str) -> dict[str, int]:
        """A free port for each name."""
        return choose(Home(root=self.home), names)

    def ask(self, *arguments: str) -> str:
        """What a Python child of this installation prints. Raises CalledProcessError."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout


def row(name: str, *, web: str = "127.0.0.1:0") -> Process:
    """The process table's row of that name."""
    site = Site(python=sys.executable, web=web, live="127.0.0.1:0")
    return next(each for each in table(site) if each.name == name)


@contextmanager
def installation() -> Iterator[Installation]:
    """Durable servers and a migrated database, until the block ends. About ten seconds."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slipway-bench-")))
        Home(root=home).prepare()
        servers = stack.enter_context(start_servers(home / "servers"))
        made = Installation(home=home, servers=servers, stack=stack.enter_context(ExitStack()))
        made.ask("-W", "ignore", "manage.py", "prepare", "--skip-checks")
        yield made
