"""Runs as a program of its own between `up` and a child: sets what must be set after the fork, then becomes it.

Usage: launch.py DEATH_SIGNAL PARENT_PID RUN_AS ARGV...

The kernel sends DEATH_SIGNAL when the thread that started the child ends, so a killed `up` leaves nothing
behind. RUN_AS is "-" or a user id that Postgres shall see: in a user namespace of its own, this user
appears as that one, which needs no account, no sudo and changes nobody's files.
Refused: preexec_fn, which runs Python after a fork in a process that has threads.
Imports nothing but the standard library, and starts isolated, so that it costs 10 ms.
"""

import ctypes
import os
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def appear_as(user: str) -> None:
    uid, gid = os.geteuid(), os.getegid()
    os.unshare(os.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{user} {gid} 1")


def die_with_parent(signal: int, parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


def main() -> None:
    signal, parent, run_as, *argv = sys.argv[1:]
    if run_as != "-":
        appear_as(run_as)
    die_with_parent(int(signal), int(parent))
    os.execvp(argv[0], argv)  # noqa: S606  the argv is from the process table


if __name__ == "__main__":
    main()
