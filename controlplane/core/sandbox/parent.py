"""The parent's side: start a child, follow it, end it."""

import json
import math
import os
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from controlplane.core.sandbox.hearing import Hearing
from controlplane.core.sandbox.limits import Limits
from controlplane.core.sandbox.outcome import Evidence, Message, Outcome, SandboxFailure

REPOSITORY = Path(__file__).resolve().parents[3]
KILL_WAIT_S = 3.0
KEEPER_GRACE_S = 10.0
"""A parent that is frozen cannot hold the wall limit; the child's keeper does, this much later."""
_CHUNK = 65536

_PASSED_ON = ("PATH", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_HOME")
_THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def environment(*, scratch: Path, threads: int | None) -> dict[str, str]:
    """Built from nothing, so that no secret of the parent can be in it."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    counts = dict.fromkeys(_THREAD_COUNTS, str(threads)) if threads else {}
    return {
        **passed,
        **counts,
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        # What one arena has free is no use to a thread of another, and counts all the same.
        "MALLOC_ARENA_MAX": "2",
    }


class _Deadline:
    """When the keeper ends the child, whatever has become of this process: a time in a file without a name that
    both have open. The monotonic clock is the same in all processes of a machine."""

    def __init__(self, limits: Limits, *, at: float) -> None:
        self.began = time.monotonic()
        self.at = self._latest = self.began + limits.wall_s + KEEPER_GRACE_S
        self.fd = os.memfd_create("deadline", os.MFD_CLOEXEC)
        self.move(at)

    @property
    def met(self) -> bool:
        return time.monotonic() >= self.at

    def move(self, moment: float) -> None:
        """Not once it was met: the keeper may have acted on it."""
        if self.met:
            return
        self.at = min(moment, self._latest)
        os.pwrite(self.fd, struct.pack("d", self.at), 0)


class Child:
    """A sandboxed child and everything it started. Leaving the block leaves no process behind.

    Start it in a thread that outlives it: the kernel ends the child when the *thread* that started it ends.
    The wall limit is held while `poll` or `outcome` is being called, and by the child's keeper 10 s later. The
    keeper also ends a child that its parent, frozen or blocked, holds no longer: see `hold_until`.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        *,
        channel: int,
        asking: int,
        deadline: "_Deadline",
        limits: Limits,
    ) -> None:
        assert process.stdout is not None
        started = deadline.began
        self._process = process
        self._channel = channel
        self._asking = asking
        self._keepers = deadline
        self._output = process.stdout
        self._started = started
        self._deadline = started + limits.wall_s
        self._evidence = Evidence(limits=limits)
        self._hearing = Hearing(self._evidence)
        self._oom_kills = _host_oom_kills()
        self._selector = selectors.DefaultSelector()
        for fd in (channel, self._output.fileno()):
            os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ)

    @classmethod
    def start(
        cls,
        *,
        entry: str,
        spec: Mapping[str, Any],
        scratch: Path,
        limits: Limits,
        readable: Sequence[Path] = (),
        writable: Sequence[Path] = (),
        held_until: float = math.inf,
        python: Path | None = None,
    ) -> Self:
        """Starts `entry` with `spec`. The child may write only in `scratch` and the folders `writable` and, beside the
        system and our code, read only `readable`. `python` is the interpreter of another environment that it runs on.
        Raises OSError if no process can be started."""
        scratch = scratch.resolve(strict=True)
        deadline = _Deadline(limits, at=held_until)
        reading, writing = os.pipe()
        asked, asking = os.pipe()
        job = {
            "entry": entry,
            "spec": dict(spec),
            "limits": limits.to_json(),
            "readable": [str(path.resolve()) for path in readable],
            "writable": [str(path.resolve()) for path in (scratch, *writable)],
            "channel": writing,
            "deadline": deadline.fd,
            "asked": asked,
            "parent": os.getpid(),
        }
        try:
            process = _spawn(job, python=python, scratch=scratch, threads=limits.threads)
        except BaseException:
            for number in (reading, asking, deadline.fd):
                os.close(number)
            raise
        finally:
            os.close(writing)
            os.close(asked)
        return cls(process, channel=reading, asking=asking, deadline=deadline, limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._selector.close()
        os.close(self._channel)
        os.close(self._asking)
        os.close(self._keepers.fd)
        self._output.close()

    @property
    def pid(self) -> int:
        """Of the keeper: the process whose end is the end of the child."""
        return self._process.pid

    @property
    def isolation(self) -> dict[str, Any]:
        """What the child said it has: `namespaces` (names), `files` (are they confined). Empty before."""
        return self._hearing.isolation

    @property
    def finished(self) -> bool:
        """Ended, reaped, and nothing of what it said is unheard."""
        return not self._listening and not self._hearing.heard

    @property
    def _listening(self) -> bool:
        return bool(self._selector.get_map())

    def poll(self, timeout_s: float) -> Message | None:
        """The next message, None when there was none for `timeout_s` or the child has finished."""
        heard = self._hearing.heard
        until = time.monotonic() + timeout_s
        while not heard and self._listening:
            self._hold_wall_limit()
            now = time.monotonic()
            if not self._listen(max(0.0, min(until, self._deadline) - now)) and now >= until:
                return None
        return heard.popleft() if heard else None

    def hold_until(self, moment: float) -> None:
        """Moves the time on the monotonic clock at which the keeper ends the child by itself; only ever later than
        what was said before. A child that met it ends as `abandoned`."""
        self._keepers.move(moment)

    def ask_to_stop(self) -> None:
        """Lets an entry that looks at `asking.asked_to_stop` end by itself. It need not: `kill` is the parent's."""
        with suppress(BrokenPipeError):
            os.write(self._asking, b".")

    def outcome(self) -> Outcome:
        """Waits for the end and says how it was. Messages that were not polled for are dropped."""
        while not self.finished:
            self.poll(1.0)
        return self._evidence.judge()

    def kill(self) -> None:
        """Ends the child and every process it started, and waits until they are gone. May be repeated."""
        if self._listening and self._process.poll() is None:
            self._evidence.killed_by_caller = True
        self._end_processes()
        while self._listening:
            self._listen(KILL_WAIT_S)

    def _hold_wall_limit(self) -> None:
        late = time.monotonic() >= self._deadline
        if late and not self._evidence.wall_exceeded and self._process.poll() is None:
            self._evidence.wall_exceeded = True
            self._end_processes()

    def _end_processes(self) -> None:
        """SIGTERM asks the keeper to end its inside and wait for it; a keeper that cannot is killed itself,
        which ends the inside as well."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(KILL_WAIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _listen(self, timeout_s: float) -> bool:
        """Reads once from each stream that has something; output before messages, so that a line printed
        before a step is heard before it. False if nothing was there."""
        ended = self._process.poll() is not None
        ready = {key.fd for key, _ in self._selector.select(0 if ended else timeout_s)}
        for fd in (self._output.fileno(), self._channel):
            if fd in ready:
                self._take(fd)
        if not self._listening or (ended and not ready):
            self._end_of_streams()
        return bool(ready)

    def _take(self, fd: int) -> None:
        data = os.read(fd, _CHUNK)
        if not data:
            self._selector.unregister(fd)
        if fd != self._channel:
            self._hearing.output(data)
        elif not self._hearing.channel(data):
            self._end_processes()

    def _end_of_streams(self) -> None:
        """Nothing more can be said. What ends by itself is given a moment, so that its memory is accounted."""
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
        try:
            self._process.wait(KILL_WAIT_S)
        except subprocess.TimeoutExpired:
            self._end_processes()
        evidence = self._evidence
        if evidence.status is None:
            evidence.status = self._process.returncode
        evidence.elapsed_s = time.monotonic() - self._started
        evidence.abandoned = self._keepers.met
        evidence.host_out_of_memory = _host_oom_kills() > self._oom_kills
        evidence.log_tail = tuple(self._hearing.tail)


def _spawn(
    job: Mapping[str, Any], *, python: Path | None, scratch: Path, threads: int | None
) -> subprocess.Popen[bytes]:
    # A memory file, not a pipe: a large spec must not block the parent.
    order = os.memfd_create("spec", os.MFD_CLOEXEC)
    try:
        with open(order, "wb", closefd=False) as file:
            file.write(json.dumps(job).encode())
        os.lseek(order, 0, os.SEEK_SET)
        return subprocess.Popen(
            [str(python or sys.executable), "-P", "-m", "controlplane.core.sandbox.child"],
            stdin=order,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(job["channel"], job["deadline"], job["asked"]),
            cwd=scratch,
            env=environment(scratch=scratch, threads=threads),
            start_new_session=True,
        )
    finally:
        os.close(order)


def _host_oom_kills() -> int:
    """How often the kernel ran out of memory and killed, since boot."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def call(
    *,
    entry: str,
    spec: Mapping[str, Any],
    scratch: Path,
    limits: Limits,
    readable: Sequence[Path] = (),
) -> dict[str, Any]:
    """Runs `entry` to its end and returns its result. Raises SandboxFailure."""
    with Child.start(entry=entry, spec=spec, scratch=scratch, limits=limits, readable=readable) as child:
        outcome = child.outcome()
    if outcome.result is None:
        raise SandboxFailure(outcome)
    return outcome.result
