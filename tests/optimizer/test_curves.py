"""Curves of a job that learns: from a child's points, through the log, to pictures and tables on its page."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import drawings
from optimizer import curves
from optimizer.models import Job, JobEvent
from optimizer.worker import supervision
from optimizer.worker.hold import Hold
from tests.optimizer import jobs


def point(curve: str, step: int, **values: float) -> dict[str, Any]:
    return {"kind": "point", "curve": curve, "step": step, "values": values}


def event(curve: str, step: int, **values: float) -> JobEvent:
    return JobEvent(data=curves.recorded(point(curve, step, **values)))


def test_each_value_is_a_chart_with_a_line_for_each_curve_that_has_it() -> None:
    loss, accuracy = curves.charts(
        [
            event("student", 10, loss=2.0, accuracy=0.5),
            event("student", 20, loss=1.0, accuracy=0.75),
            event("control", 10, loss=3.0),
        ]
    )
    assert [chart.name for chart in (loss, accuracy)] == ["loss", "accuracy"]
    assert [(line.name, line.last) for line in loss.lines] == [("student", 1.0), ("control", 3.0)]
    assert loss.rows == [(20, [1.0, None]), (10, [2.0, 3.0])]
    assert (loss.plot.low, loss.plot.high, loss.steps) == (1.0, 3.0, 20)
    assert [line.name for line in accuracy.lines] == ["student"]


def test_what_a_resumed_attempt_says_again_counts_instead_of_what_was_said_before() -> None:
    (loss,) = curves.charts([event("a", 10, loss=2), event("a", 20, loss=9), event("a", 20, loss=1)])
    assert loss.rows == [(20, [1]), (10, [2])]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 2**31 - 1), st.floats(-1e9, 1e9)), max_size=20).map(sorted),
        max_size=3,
    )
)
def test_a_plot_stays_in_its_box_with_one_scale_for_all_lines(lines: list[list[tuple[float, float]]]) -> None:
    drawn = drawings.plot(lines, width=320, height=96)
    numbers = [float(text) for path in drawn.lines for text in re.findall(r"[ML](\S+) ", path)]
    heights = [float(text) for path in drawn.lines for text in re.findall(r"[ML]\S+ ([-\d.]+)", path)]
    assert len(numbers) == len(heights) == sum(map(len, lines))
    assert all(0 <= x <= 320 for x in numbers)
    assert all(0 <= y <= 96 for y in heights)


@pytest.mark.django_db
def test_a_page_shows_the_curves_of_its_job_as_pictures_and_as_tables(
    three, version_of, django_assert_max_num_queries
):
    owner, _, _ = three
    claim = jobs.running(owner.actor, version_of(owner.actor))
    job = Job.objects.get(pk=claim.job_id)
    assert "curves" not in owner.browser.get(f"/jobs/{job.pk}/").content.decode()
    hold = Hold(claim=claim)
    for step in (50, 100):
        supervision.hear(point("student", step, loss=2 / step, accuracy=0.5 + step / 400), hold)
    supervision.hear(point("control", 50, loss=0.25, accuracy=0.5), hold)
    hold.flush()
    page = owner.browser.get(f"/jobs/{job.pk}/").content.decode()
    shown = page[page.index('id="curves"') : page.index("</figure></div>")]
    assert shown.count('role="img"') == shown.count("<table") == 2
    assert 'aria-label="Loss: student, last 0.0200; control, last 0.2500"' in shown
    assert re.findall(r'<th scope="row"[^>]*>(\d+)', shown) == ["100", "50", "100", "50"]
    assert page.index('id="job-progress"') < page.index('id="curves"'), "inside what refreshes itself"
    assert "student, step 100: loss 0.02, accuracy 0.75" in page, "and in words in the log"
    with django_assert_max_num_queries(14):
        owner.browser.get(f"/jobs/{job.pk}/")
