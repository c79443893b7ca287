"""What a kernel gives its sandboxed children, and what an operator can do where it gives less.

A child goes on with what it has, because a machine without Landlock can still be somebody's only one; but never
silently. Refused: failing closed, which would leave the choice of a kernel to whoever uploads a model.
"""

import logging
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from controlplane.core.sandbox.limits import MIB, Limits

_log = logging.getLogger(__name__)

_NAMESPACES = (
    "Allow user namespaces: sysctl user.max_user_namespaces above 0, and kernel.unprivileged_userns_clone=1 or "
    "kernel.apparmor_restrict_unprivileged_userns=0 where these exist; in a container, a seccomp profile that "
    "lets `unshare` through."
)
_LACKS = {
    "files": (
        "it can read and write every file that Slipway can",
        "Run a kernel 5.13 or newer with Landlock (see /sys/kernel/security/lsm), and a seccomp profile that "
        "lets it through.",
    ),
    "network": ("it can open connections", _NAMESPACES),
    "pid": ("it can see and signal Slipway's other processes", _NAMESPACES),
}


def missing(hello: dict[str, Any], *, network: bool = False) -> tuple[str, ...]:
    """Of "files", "network" and "pid", what a child with this hello lacks; `network` is what it may have."""
    has = {*hello["namespaces"], *(["files"] if hello["files"] else []), *(["network"] if network else [])}
    return tuple(name for name in _LACKS if name not in has)


def told(lacking: Iterable[str]) -> tuple[str, str]:
    """What that means, and what to do."""
    meanings, remedies = zip(*(_LACKS[name] for name in lacking), strict=True)
    what = f"A process that opens an uploaded file is not fully confined: {'; '.join(meanings)}."
    return what, " ".join(dict.fromkeys(remedies))


@cache
def warn_once(lacking: tuple[str, ...]) -> None:
    _log.warning("%s %s", *told(lacking))


def probe() -> tuple[str, ...]:
    """What a child on this machine lacks; starts one."""
    import tempfile

    from controlplane.core.sandbox.parent import Child

    limits = Limits(memory_bytes=512 * MIB, cpu_s=5, wall_s=10, file_bytes=MIB)
    entry = f"{__name__}:nothing"
    with (
        tempfile.TemporaryDirectory() as scratch,
        Child.start(entry=entry, spec={}, scratch=Path(scratch), limits=limits) as child,
    ):
        child.outcome()
        return missing(child.isolation) if child.isolation else tuple(_LACKS)


def nothing(spec: dict[str, Any], emit: Any) -> dict[str, Any]:
    """The entry of the probe."""
    return {}
