"""What the sandbox's children do in its tests. Each runs in the child."""

import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controlplane.core.errors import Unprocessable
from controlplane.core.sandbox.asking import asked_to_stop

Emit = Callable[[dict[str, Any]], None]


def echo(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    return spec


def tell(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    emit({"kind": "step", "name": "first", "index": 1, "of": 2})
    print("from stdout")
    print("from stderr", file=sys.stderr)
    emit({"kind": "progress", "done": 1, "total": 2})
    emit({"kind": "log", "level": "warning", "message": "careful"})
    return {"done": True}


def refuse(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    raise Unprocessable("not_onnx", "This file is not an ONNX model.", "It begins with \x1b[31mELF.")


def fail(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    raise ValueError("seven is not a shape")


def sleep(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    emit({"kind": "step", "name": "asleep"})
    time.sleep(600)
    return {}


def wait_to_be_asked(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    emit({"kind": "step", "name": "waiting"})
    while not asked_to_stop():
        time.sleep(0.01)
    emit({"kind": "log", "level": "info", "message": "as you wish"})
    return {"asked": True}


def spin(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    while True:
        pass


def hoard(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    kept = []
    while True:
        kept.append(b"x" * 1_000_000)


def map_memory(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Only asked for, not used: `flags` and `prot` are mmap's."""
    mapped = mmap.mmap(-1, spec["bytes"], flags=spec["flags"], prot=spec["prot"])
    return {"mapped": len(mapped)}


def die(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    print("about to die", flush=True)
    os.kill(os.getpid(), getattr(signal, spec["signal"]))
    time.sleep(600)
    return {}


def leave(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    os._exit(spec["status"])


def write_file(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    with Path("big").open("wb") as file:
        for _ in range(spec["megabytes"]):
            file.write(b"x" * 1_000_000)
    return {}


def fill(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    Path("/dev/full").write_bytes(b"x")
    return {}


def look_around(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    return {
        "environment": dict(os.environ),
        "cwd": str(Path.cwd()),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "capabilities": [line for line in Path("/proc/self/status").read_text().split("\n") if "Cap" in line],
    }


def try_files(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Which of the paths can be read, which written."""

    def allowed(path: str, mode: str) -> bool:
        try:
            with Path(path).open(mode):
                return True
        except OSError:
            return False

    return {
        "read": [path for path in spec["read"] if allowed(path, "rb")],
        "write": [path for path in spec["write"] if allowed(path, "ab")],
    }


def connect(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    try:
        socket.create_connection(("127.0.0.1", spec["port"]), timeout=5).close()
    except OSError as error:
        return {"connected": False, "why": str(error)}
    return {"connected": True}


def breed(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Leaves a grandchild in a session of its own that ignores what can be ignored."""
    program = (
        "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)];"
        "print('up', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, spec["mark"]],
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    child.stdout.readline()
    emit({"kind": "step", "name": "bred"})
    if spec.get("stay"):
        time.sleep(600)
    return {}


def chat(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    for _ in range(spec["lines"]):
        sys.stdout.write("x" * spec["width"] + "\n")
    return {"done": True}


def say(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    sys.stdout.write(spec["text"])
    return {}


def babble(spec: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Writes into the channel what is no message."""
    for descriptor in range(3, 64):
        try:
            if str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith("pipe:"):
                os.write(descriptor, spec["line"].encode() + b"\n")
        except OSError:
            continue
    time.sleep(600)
    return {}
