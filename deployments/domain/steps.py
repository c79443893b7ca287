"""A canary's steps as one line of text: “5, 25 for 300 s, 50 for 1000 requests and 300 s”.

What a form has a single field for; `read` and `write` are inverses, so that editing by form loses nothing.
"""

import re
from collections.abc import Sequence

from deployments.domain.spec import CanaryStep
from deployments.domain.wire import refuse

_STEP = re.compile(
    r"(?P<weight>[0-9]{1,4}) ?%?"
    r"(?: for (?:at least )?(?P<first>[0-9]{1,9}) ?(?P<kind>s|requests?)(?: and (?P<pause>[0-9]{1,9}) ?s)?)?"
)


def read(text: str) -> list[dict[str, int]]:
    """The steps as a rollout's document has them; their numbers are checked by the policy that holds them.

    Raises InvalidInput that quotes the first step that cannot be read.
    """
    parts = [" ".join(part.split()) for part in text.replace(";", ",").split(",")]
    return [_step(part) for part in parts if part]


def _step(part: str) -> dict[str, int]:
    found = _STEP.fullmatch(part.lower())
    if found is None or (found["kind"] == "s" and found["pause"]):
        raise refuse(
            "rollout.steps",
            f"must be percents such as 5, 25 for 300 s, 50 for 1000 requests, but one is “{part[:40]}”",
        )
    step = {"weight": int(found["weight"])}
    if found["kind"]:
        step["pause_s" if found["kind"] == "s" else "min_requests"] = int(found["first"])
    if found["pause"]:
        step["pause_s"] = int(found["pause"])
    return step


def write(steps: Sequence[CanaryStep]) -> str:
    return ", ".join(_words(step) for step in steps)


def _words(step: CanaryStep) -> str:
    more = [f"{step.min_requests} requests"] * bool(step.min_requests) + [f"{step.pause_s} s"] * bool(
        step.pause_s
    )
    return f"{step.weight}" + (f" for {' and '.join(more)}" if more else "")
