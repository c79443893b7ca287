"""The child's side: `python -m controlplane.core.sandbox.child`, the job as JSON on stdin.

    parent --- keeper --- init (process 1 of its own process namespace) --- worker --- whatever it starts
                 where no such namespace may be made: keeper --- worker

The keeper is outside of everything that untrusted bytes can reach. When it ends, init ends, and the kernel
ends everything in the namespace; without one, the keeper adopts and kills orphans itself. The worker is not
process 1 because a process 1 ignores the signals that it sends itself, so abort() would look like a segfault.

Nothing heavy is imported before the limits hold. Exit statuses of the worker are for the parent only.
"""

import errno
import importlib
import json
import os
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

from controlplane.core.sandbox import asking, confine

type Emit = Callable[[dict[str, Any]], None]

REPOSITORY = Path(__file__).resolve().parents[3]
EXIT_FAILED = 3
"""The worker could not even say why: no memory was left for the sentence."""


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    confine.die_with_parent(signal.SIGTERM)
    if os.getppid() != job["parent"]:
        os._exit(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (job["channel"], job["deadline"], job["asked"]):
        os.set_inheritable(number, False)
    spaces = confine.namespaces(network=job["limits"]["network"])
    confine.adopt_orphans()
    _keep(job, spaces)


def _keep(job: dict[str, Any], spaces: frozenset[str]) -> NoReturn:
    """Forks the first process of the inside, ends it when told to (SIGTERM) or when nobody holds it any longer."""
    alive, held = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    first = os.fork()
    if first == 0:
        os.close(held)
        os.close(job["deadline"])
        _inside(job, spaces, keeper=alive)
    os.close(alive)
    os.close(job["asked"])

    def end(_number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(first, signal.SIGKILL)

    def look(number: int, frame: object) -> None:
        left_s = _left_s(job["deadline"])
        if left_s > 0:
            signal.setitimer(signal.ITIMER_REAL, left_s)
        else:
            end(number, frame)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGALRM, look)
    look(signal.SIGALRM, None)
    confine.die_with_parent(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    if os.getppid() != job["parent"]:
        end(0, None)
    status, peak_bytes = _wait_for(first)
    if "pid" not in spaces:
        _end_descendants()
        _send(job["channel"], {"kind": "exit", "status": status, "peak_bytes": peak_bytes})
    os._exit(0)


def _left_s(deadline: int) -> float:
    """The parent moves it while it holds this child."""
    (moment,) = struct.unpack("d", os.pread(deadline, 8, 0))
    return float(moment) - time.monotonic()


def _inside(job: dict[str, Any], spaces: frozenset[str], *, keeper: int) -> NoReturn:
    confine.die_with_parent(signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    _exit_if_gone(keeper)
    if "pid" not in spaces:
        _work(job, spaces)
    worker = os.fork()
    if worker == 0:
        os.close(keeper)
        _work(job, spaces)
    status, peak_bytes = _wait_for(worker)
    _send(job["channel"], {"kind": "exit", "status": status, "peak_bytes": peak_bytes})
    os._exit(0)


def _exit_if_gone(pipe: int) -> None:
    """If the keeper died before this process asked to die with it, its end of the pipe is closed."""
    os.set_blocking(pipe, False)
    try:
        os.read(pipe, 1)
    except BlockingIOError:
        return
    os._exit(0)


def _wait_for(pid: int) -> tuple[int, int]:
    """Reaps orphans until `pid` ended. Returns its exit status (negative: signal) and peak resident bytes."""
    while True:
        ended, status, usage = os.wait4(-1, 0)
        if ended == pid:
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024


def _end_descendants() -> None:
    """Without a process namespace: kill children, whose children then become ours, until none is left."""
    while True:
        for pid in _children(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.wait4(-1, 0)
        except ChildProcessError:
            return


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(entry.name))
    return found


def _work(job: dict[str, Any], spaces: frozenset[str]) -> NoReturn:
    limits = job["limits"]
    confine.first_to_die()
    confine.drop_privileges()
    confine.die_with_parent(signal.SIGKILL)
    # Found while the folder that holds our packages can still be listed; their own folders stay readable.
    importlib.import_module(job["entry"].partition(".")[0])
    confined = confine.confine_files(
        writable=[Path(path) for path in job["writable"]],
        readable=[Path(path) for path in job["readable"]],
        code=_code_folders(),
        network=limits["network"],
    )
    confine.limit(limits, isolated_user="user" in spaces)
    emit = _emitter(job["channel"])
    emit({"kind": "hello", "namespaces": sorted(spaces), "files": confined, "pid": os.getpid()})
    asking.listen(job["asked"])
    os._exit(_run(job["entry"], job["spec"], emit))


def _code_folders() -> Iterable[Path]:
    """The interpreter and our packages, but not the folder that holds them: it may hold data and secrets."""
    yield from {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent}
    for folder in REPOSITORY.iterdir():
        if folder.is_dir() and not folder.name.startswith(".") and (folder / "__init__.py").exists():
            yield folder


def _run(entry: str, spec: dict[str, Any], emit: Emit) -> int:
    import faulthandler

    faulthandler.enable()
    try:
        module, _, name = entry.partition(":")
        function = getattr(importlib.import_module(module), name)
        result = function(spec, emit)
        emit({"kind": "result", "data": result})
        sys.stdout.flush()
        return 0
    except MemoryError:
        return _fail(emit, reason="out_of_memory", detail="")
    except BaseException as error:  # noqa: BLE001 - whatever an entry raises is told to the parent
        return _explain(error, emit)


def _explain(error: BaseException, emit: Emit) -> int:
    from controlplane.core.errors import SlipwayError

    if isinstance(error, SlipwayError):
        emit({"kind": "refused", "code": error.code, "title": error.title, "detail": error.detail})
        return 0
    traceback.print_exception(error)
    number = error.errno if isinstance(error, OSError) else None
    if number in {errno.ENOSPC, errno.EDQUOT}:
        return _fail(emit, reason="storage_full", detail="The disk has no room left.")
    if number == errno.EFBIG:
        most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        return _fail(emit, reason="error", detail=f"It tried to write a file of more than {most:,} bytes.")
    text = str(error) or type(error).__name__
    return _fail(emit, reason="error", detail=f"{type(error).__name__}: {text}"[:2000])


def _fail(emit: Emit, *, reason: str, detail: str) -> int:
    try:
        emit({"kind": "failed", "reason": reason, "detail": detail})
    except MemoryError:
        return EXIT_FAILED
    return 0


def _emitter(channel: int) -> Emit:
    lock = Lock()

    def emit(message: dict[str, Any]) -> None:
        with lock:
            _send(channel, message)

    return emit


def _send(channel: int, message: dict[str, Any]) -> None:
    data = memoryview(json.dumps(message, allow_nan=False).encode() + b"\n")
    try:
        while data:
            data = data[os.write(channel, data) :]
    except BrokenPipeError:  # nobody listens any more
        os._exit(0)


if __name__ == "__main__":
    main()
