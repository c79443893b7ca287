"""What the kernel takes away from a child before it reads a byte: namespaces, capabilities, files, memory.

All of it works for an ordinary user. Where a kernel or a container forbids a part, the rest still holds and
the child says in its hello what it has; `isolation` tells the operator what is missing. Refused: seccomp filters (no
pure Python way that stays readable) and chroot (needs root, and Landlock does the same for reading and writing).
"""

import ctypes
import os
import resource
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_CHILD_SUBREAPER = 36
_PR_CAPBSET_DROP = 24
_LAST_CAPABILITY = 63

_MAPPED_BYTES = 4 * 1024**3
"""Address space beside a child's own memory, for libraries and files that it maps: PyTorch's alone take 2.4 GiB."""

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> bool:
    return bool(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0)


def die_with_parent(number: signal.Signals) -> None:
    """Call again after every change of credentials: the kernel forgets it there."""
    _prctl(_PR_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Grandchildren whose parent died become this process's children, whatever session they made."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def namespaces(*, network: bool) -> frozenset[str]:
    """Leaves as many of the parent's namespaces as allowed; returns which ("user", "pid", "ipc", "network").

    A process namespace takes effect for the next fork. Must run while the process has one thread.
    """
    net = 0 if network else os.CLONE_NEWNET
    user, pid, ipc = os.CLONE_NEWUSER, os.CLONE_NEWPID, os.CLONE_NEWIPC
    names = {user: "user", pid: "pid", ipc: "ipc", os.CLONE_NEWNET: "network"}
    uid, gid = os.getuid(), os.getgid()
    for flags in (user | pid | ipc | net, pid | ipc | net, user | ipc | net, ipc | net):
        try:
            os.unshare(flags)
        except OSError:
            continue
        if flags & user:
            _map_identity(uid, gid)
        return frozenset(name for flag, name in names.items() if flags & flag)
    return frozenset()


def _map_identity(uid: int, gid: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        try:
            Path(f"/proc/self/{name}").write_text(text)
        except OSError:
            return


def drop_privileges() -> None:
    """No capability is left, none can be gained by exec."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for capability in range(_LAST_CAPABILITY + 1):
        if not _prctl(_PR_CAPBSET_DROP, capability):
            break
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _libc.capset(header, (ctypes.c_uint32 * 6)())


def limit(limits: dict[str, Any], *, isolated_user: bool) -> None:
    """Resource limits. Memory is what is the child's own (private and writable); mapped files and what is only reserved
    are not, and memory shared between processes is bounded by the address space. That has no limit beside NVIDIA's
    driver: the first CUDA context reserves about twice the memory of the GPU.

    The number of processes is counted per user, so it is set where the user is our own (a namespace) and left alone
    where other processes of the same user would be counted in."""
    bounds = {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (256, 256),
        resource.RLIMIT_FSIZE: (limits["file_bytes"],) * 2,
        resource.RLIMIT_CPU: (limits["cpu_s"], limits["cpu_s"] + 5),
        resource.RLIMIT_DATA: (limits["memory_bytes"],) * 2,
    }
    if not Path("/dev/nvidiactl").exists():
        bounds[resource.RLIMIT_AS] = (limits["memory_bytes"] + _MAPPED_BYTES,) * 2
    if isolated_user and os.getuid() != 0:
        bounds[resource.RLIMIT_NPROC] = (limits["processes"],) * 2
    for kind, (soft, hard) in bounds.items():
        _, highest = resource.getrlimit(kind)
        if highest != resource.RLIM_INFINITY:
            soft, hard = min(soft, highest), min(hard, highest)
        resource.setrlimit(kind, (soft, hard))


def first_to_die() -> None:
    """When the machine runs out of memory the kernel takes this process, not a database."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("900")


# Landlock: a process gives up files for itself and its children; no privilege needed. Numbers from
# include/uapi/linux/landlock.h.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_ACCESS_OF_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
_TCP_BIND_CONNECT = 3
_SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 3
_READ = _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14  # 1 << 14 is truncate

_DEVICES = ("null", "zero", "full", "random", "urandom", "dri", "kfd")
_SETTINGS = (
    *("ld.so.cache", "localtime", "timezone", "passwd", "group", "nsswitch.conf", "os-release", "mime.types"),
    *("host.conf", "hosts", "alternatives", "OpenCL", "ssl"),
)


def confine_files(
    *, writable: Iterable[Path], readable: Iterable[Path], code: Iterable[Path], network: bool
) -> bool:
    """Leaves reading of system, interpreter, code and `readable`, and writing of `writable` and /dev/null.

    Nothing else in the file system can be read or written. False where the kernel has no Landlock.
    """
    abi = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return False
    every = _ACCESS_OF_ABI[min(abi, 3)]
    net = _TCP_BIND_CONNECT if abi >= 4 and not network else 0
    scope = _SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS if abi >= 6 else 0
    attributes = (ctypes.c_uint64 * 3)(every, net, scope)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    try:
        for folder in (*map(Path, ("/usr", "/lib", "/lib64", "/bin")), *code):
            _allow(ruleset, folder, _READ | _EXECUTE)
        for path in (Path("/proc"), Path("/sys"), *(Path("/etc", name) for name in _SETTINGS), *readable):
            _allow(ruleset, path, _READ)
        devices = [Path("/dev", name) for name in _DEVICES]
        for device in [*devices, *Path("/dev").glob("nvidia*")]:
            _allow(ruleset, device, every & (_READ | _WRITE_FILE | 1 << 14))
        for folder in writable:
            _allow(ruleset, folder, every)
        return bool(_libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, access: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            access &= _OF_FILES
        rule = ctypes.create_string_buffer(
            access.to_bytes(8, "little") + handle.to_bytes(4, "little", signed=True), 12
        )
        _libc.syscall(_ADD_RULE, ruleset, 1, rule, 0)
    finally:
        os.close(handle)
