"""How single values look: numbers, times and states, and that whatever they hold stays text."""

import importlib
import re
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path

import pytest
from django.conf import settings
from django.template import Context, Template
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import drawings, formats
from controlplane.core.templatetags import presentation
from controlplane.core.vocabulary import WORDS, Tone, Word, word_of

NOW = datetime(2026, 11, 24, 16, 0, 5, tzinfo=UTC)
FINITE = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15)
MULTIPLES = {"": 1.0, "M": 1e6, "G": 1e9, "T": 1e12}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (7, "7"),
        (999, "999"),
        (1.5, "1.50"),
        (12.345, "12.3"),
        (999.6, "1,000"),
        (1234, "1,230"),
        (-12.345, "−12.3"),
        (1_234_567, "1.23M"),
        (999_999, "1.00M"),
        (0.00123, "0.00123"),
        (1e-9, "<0.001"),
        (float("nan"), "–"),
        (float("inf"), "–"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert formats.significant(value) == text


@given(FINITE)
def test_what_is_written_is_within_half_a_per_cent_of_the_value(value: float) -> None:
    text = formats.significant(value)
    if text.endswith(str(formats.SMALLEST)):
        assert abs(value) < formats.SMALLEST
        return
    found = re.fullmatch(r"(−?)([\d,.]+)([MGT]?)", text)
    assert found is not None, text
    read = float(found[2].replace(",", "")) * MULTIPLES[found[3]] * (-1 if found[1] else 1)
    assert read == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (1024, "1.00 KiB"),
        (3_198_245, "3.05 MiB"),
        (2 * 1024**3, "2.00 GiB"),
        (None, "–"),
    ],
)
def test_sizes_are_powers_of_1024_under_their_own_names(size_bytes: int | None, text: str) -> None:
    assert str(formats.size(size_bytes)) == text


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0, "0 s"),
        (0.0000042, "4.20 µs"),
        (0.0123, "12.3 ms"),
        (7.891, "7.89 s"),
        (59.99, "1 min"),
        (74.2, "1 min 14 s"),
        (7449, "2 h 4 min"),
        (90_061, "1 d 1 h"),
        (-74, "−1 min 14 s"),
        (None, "–"),
    ],
)
def test_durations_are_said_in_at_most_two_steps(duration_s: float | None, text: str) -> None:
    assert str(formats.duration(duration_s)) == text


def test_what_is_still_counting_has_whole_seconds() -> None:
    assert str(formats.duration(40.4, whole=True)) == "40 s"
    assert str(formats.duration(0.3, whole=True)) == "0 s"


@pytest.mark.parametrize(
    ("ago_s", "text"),
    [
        (1, "just now"),
        (12, "12 s ago"),
        (119, "1 min ago"),
        (7200, "2 h ago"),
        (-300, "in 5 min"),
        (864_000, "10 d ago"),
    ],
)
def test_ages_never_say_more_than_has_passed(ago_s: int, text: str) -> None:
    assert formats.relative(NOW - timedelta(seconds=ago_s), now=NOW) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.51, "−49 %"), (1.0, "±0 %"), (1.02, "+2.0 %"), (3.1, "+210 %"), (0.995, "−0.50 %")]
)
def test_a_ratio_is_a_signed_change(ratio: float, text: str) -> None:
    assert formats.signed_percent(ratio) == text


def test_a_change_is_coloured_only_where_its_interval_excludes_the_parent() -> None:
    assert 'data-tone="ok"' in presentation.delta(0.5, 0.45, 0.55, better="lower")
    assert 'data-tone="failed"' in presentation.delta(3.1, 2.9, 3.3, better="lower")
    assert 'data-tone="ok"' in presentation.delta(1.3, 1.2, 1.4, better="higher")
    assert 'data-tone=""' in presentation.delta(0.98, 0.94, 1.02, better="lower")
    assert 'data-tone=""' in presentation.delta(0.5, 0.45, 0.55)


def test_a_share_changes_in_points() -> None:
    said = presentation.delta(0.98, 0.96, 1.0, better="higher", points_of=90.0)
    assert re.sub("<[^>]+>", "", said) == "−1.8 points (−3.6 to ±0 points)"
    assert "−1.8 points" in presentation.interval(0.98, 0.96, 1.0, points_of=90.0)


@given(st.lists(st.none() | st.floats(min_value=0, max_value=1e6), max_size=40))
def test_a_sparkline_stays_in_its_box_and_keeps_its_gaps(values: list[float | None]) -> None:
    drawn = drawings.sparkline(values, width=96, height=24)
    numbers = [
        float(number) for number in re.findall(r"[ML](?:([\d.]+)) ([\d.]+)", drawn.line) for number in number
    ]
    assert all(0 <= x <= 96 for x in numbers[::2])
    assert all(0 <= y <= 24 for y in numbers[1::2])
    starts = sum(
        value is not None and (index == 0 or values[index - 1] is None) for index, value in enumerate(values)
    )
    assert drawn.line.count("M") == starts


@given(st.floats(min_value=0.01, max_value=100))
def test_an_interval_puts_the_faster_left_and_the_slower_right_of_the_parent(ratio: float) -> None:
    drawn = drawings.interval(ratio=ratio, low=ratio, high=ratio, span=4)
    assert 0 <= drawn.at_x <= drawn.width
    if ratio < 0.98:
        assert drawn.at_x < drawn.parent_x
    elif ratio > 1.02:
        assert drawn.at_x > drawn.parent_x


MACHINES = [
    ("optimizer.domain.jobs", "JobState"),
    ("optimizer.domain.verdict", "Verdict"),
    ("deployments.domain.rollouts", "RolloutState"),
    ("deployments.domain.rollouts", "Health"),
    ("deployments.domain.workload", "ReplicaState"),
]


@pytest.mark.parametrize(("module", "name"), MACHINES, ids=lambda part: part.rpartition(".")[2])
def test_every_state_of_every_machine_has_a_word(module: str, name: str) -> None:
    machine: type[Enum] = getattr(importlib.import_module(module), name)
    assert [state.value for state in machine if state.value not in WORDS] == []


def test_every_tone_has_a_shape_of_its_own_and_every_shape_is_drawn() -> None:
    sheet = (Path(settings.BASE_DIR) / "controlplane/ui/static/ui/icons.svg").read_text()
    drawn = dict(re.findall(r'<symbol id="([\w-]+)"[^>]*>(.*?)</symbol>', sheet))
    assert {word.icon for word in WORDS.values()} - set(drawn) == set()
    assert len({drawn[tone.value] for tone in Tone}) == len(Tone)


def test_a_state_may_bring_its_own_word() -> None:
    class State:
        value, label, tone, icon = "warming", "Warming up", "progressing", "clock"

    assert word_of(State()) == Word(label="Warming up", tone=Tone.PROGRESSING, icon="clock")
    assert word_of(("Half full", "warning")) == Word(label="Half full", tone=Tone.WARNING, icon="warning")


def test_an_unknown_state_is_shown_as_written_and_never_in_a_wrong_colour() -> None:
    assert word_of("half_baked") == Word(label="Half baked", tone=Tone.UNKNOWN, icon="unknown")


HOSTILE = "\"><img src=x onerror='alert(1)'>"


@pytest.mark.parametrize(
    "html",
    [
        presentation.badge((HOSTILE, "ok"), detail=HOSTILE),
        presentation.icon("ok", HOSTILE),
        presentation.copy(HOSTILE, HOSTILE),
        presentation.code(HOSTILE, 8, HOSTILE),
        presentation.tag(HOSTILE, HOSTILE),
        presentation.number(1.0, HOSTILE),
        presentation.sparkline([1, 2], label=HOSTILE, unit=HOSTILE),
    ],
)
def test_hostile_text_stays_text(html: str) -> None:
    assert "<img" not in html
    assert "onerror='" not in html


def test_what_is_shortened_is_copied_whole() -> None:
    html = presentation.code("sha256:0123456789abcdef", 10)
    assert ">sha256:012…<" in html
    assert 'data-copy="sha256:0123456789abcdef"' in html


def test_a_time_is_readable_without_a_script_and_says_its_zone() -> None:
    html = presentation.time(NOW, "absolute")
    assert 'datetime="2026-11-24T16:00:05.000Z"' in html
    assert ">24 Nov 2026, 16:00:05 UTC<" in html


def test_the_query_is_changed_without_losing_the_rest() -> None:
    context = Context({"request": RequestFactory().get("/jobs/?state=failed&page=3&tag=a&tag=b")})
    page = Template("{% load presentation %}{% query_with page=None sort='name' %}").render(context)
    assert page == "?state=failed&amp;tag=a&amp;tag=b&amp;sort=name"


def test_a_document_is_written_as_the_api_does_and_a_text_as_it_is() -> None:
    values = ["fp16", True, None, [], {"axes": ["“n”=1/4/16"]}]
    assert list(map(presentation.document, values)) == [
        "fp16",
        "true",
        "null",
        "[]",
        '{"axes": ["“n”=1/4/16"]}',
    ]
    page = Template("{% load presentation %}{{ value|document }}").render(Context({"value": ["<b>"]}))
    assert page == "[&quot;&lt;b&gt;&quot;]"
