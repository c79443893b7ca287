"""What every answer of the API must be, whatever was asked."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings

from tests.api.world import World, fingerprint

LEAKS = (
    "Traceback",
    'File "',
    "psycopg",
    "SELECT ",
    "INSERT ",
    "UPDATE ",
    ".py",
    "django",
    "DETAIL:",
    "/tmp/",
)


def flaw(response: Any, *, statuses: Iterable[int] | None = None) -> str:
    """Why this is no answer of ours; empty when it is. `statuses` are the ones that are right here."""
    if response.status_code >= 500:
        return f"{response.status_code} {_start(response)}"
    if statuses is not None and response.status_code not in set(statuses):
        return f"{response.status_code}, not one of {sorted(statuses)}: {_start(response)}"
    if response.status_code < 400:
        return ""
    if response["Content-Type"] != "application/problem+json":
        return f"{response.status_code} is {response['Content-Type']}: {_start(response)}"
    return _no_problem(response)


def _no_problem(response: Any) -> str:
    text = response.content.decode()
    problem = json.loads(text)
    empty = [
        name for name in ("type", "title", "status", "detail", "code", "instance") if not problem.get(name)
    ]
    if empty:
        return f"{response.status_code} without {', '.join(empty)}: {text[:200]}"
    if problem["status"] != response.status_code:
        return f"{response.status_code} says {problem['status']}"
    told = [leak for leak in (*LEAKS, settings.SECRET_KEY) if leak in text]
    return f"{response.status_code} tells {told}: {text[:300]}" if told else ""


def _start(response: Any) -> str:
    return "a stream" if response.streaming else repr(response.content[:200])


class Complaints:
    """Collects flaws over many requests, so that one run shows every address that is wrong."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def check(self, what: object, response: Any, *, statuses: Iterable[int] | None = None) -> None:
        if text := flaw(response, statuses=statuses):
            self.found.append(f"{what}: {text}")

    def say(self, what: object, text: str) -> None:
        self.found.append(f"{what}: {text}")


@contextmanager
def complaints() -> Iterator[Complaints]:
    collected = Complaints()
    yield collected
    assert not collected.found, f"{len(collected.found)} wrong answers:\n" + "\n".join(collected.found[:40])


@contextmanager
def nothing_written(collected: Complaints, what: object) -> Iterator[None]:
    before = fingerprint()
    yield
    after = fingerprint()
    if changed := sorted(name for name in after if after[name] != before.get(name)):
        collected.say(what, f"wrote to {', '.join(changed)}")


type Ask = Callable[[World], Any]
