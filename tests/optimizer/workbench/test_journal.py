"""Messages of a child: steps are numbered, progress is throttled and never loses its end."""

from typing import Any

import pytest

from optimizer.workbench.journal import Journal


def test_steps_count_up_and_never_beyond_what_was_announced() -> None:
    heard: list[dict[str, Any]] = []
    log = Journal(emit=heard.append, steps=2)
    for name in ("a", "b", "c"):
        log.step(name)
    assert [(message["index"], message["of"]) for message in heard] == [(1, 2), (2, 2), (3, 3)]


def test_progress_is_said_twice_a_second_at_most_and_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[dict[str, Any]] = []
    log = Journal(emit=heard.append, steps=1)
    now = iter(index * 0.1 for index in range(100))
    monkeypatch.setattr("optimizer.workbench.journal.time.monotonic", lambda: next(now))
    for done in range(1, 18):
        log.progress(done, 17)
    assert [message["done"] for message in heard] == [1, 6, 11, 16, 17]
