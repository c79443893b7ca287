"""The one way these tests wait: for something that can be seen, up to a deadline, never for a time."""

import time
from collections.abc import Callable

LOOK_EVERY_S = 0.05


def until[Value](look: Callable[[], Value], *, within_s: float, what: str = "it") -> Value:
    """The first true value that `look` gives. AssertionError with `what` and the last value after `within_s`."""
    deadline = time.monotonic() + within_s
    while True:
        value = look()
        if value:
            return value
        assert time.monotonic() < deadline, (
            f"{what} did not happen within {within_s:g} s; last seen: {value!r}"
        )
        time.sleep(LOOK_EVERY_S)
