"""How a child learns that it shall end: from a pipe that it can only read, and that its parent writes once.

A parent asks first where an entry is known to look here, so that long work ends in order and says so; what does
not end in time is killed as ever. Refused: a signal, which Python hears between two of its own instructions only,
and a vendor's library may run for minutes without one.
"""

import select

_pipe: list[int] = []


def listen(pipe: int) -> None:
    _pipe.append(pipe)


def asked_to_stop() -> bool:
    """From any thread, as often as wanted: one system call. False where no sandbox is around us."""
    return bool(_pipe) and bool(select.select(_pipe, [], [], 0)[0])
