"""Messages of a child: steps are numbered, progress and points are throttled and never lose their end."""

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


def test_each_curve_has_two_points_a_second_at_most_and_its_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[dict[str, Any]] = []
    log = Journal(emit=heard.append, steps=1)
    now = iter(index * 0.1 for index in range(100))
    monkeypatch.setattr("optimizer.workbench.journal.time.monotonic", lambda: next(now))
    for step in range(1, 10):
        for curve in ("student", "control"):
            log.point(curve, step=step, values={"loss": 1 / step}, last=step == 9)
    for curve in ("student", "control"):
        steps = [message["step"] for message in heard if message["curve"] == curve]
        assert steps == [1, 4, 7, 9]
