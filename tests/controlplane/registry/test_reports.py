"""Reports to keep: as JSON, as a file with plots, by the team and nobody else."""

import csv
import io
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.accounts.access import Actor
from controlplane.registry import costs, plots, reports
from controlplane.registry.models import Report, Variant
from tests import factories
from tests.controlplane.registry.people import code
from tests.optimizer import jobs

CURVE = [
    {"batch_size": size, "median_ms": 2.0 * size**0.8, "p25_ms": 1.9 * size**0.8, "p90_ms": 2.4 * size**0.8}
    for size in (1, 2, 4, 8, 16)
]


def made(actor: Actor, *, data: dict[str, Any] = jobs.REPORT) -> Variant:
    return jobs.result(jobs.queued(actor, factories.version(factories.model(actor.team))), data=data)


@pytest.fixture
def measured(three) -> Variant:
    owner, _, _ = three
    return made(owner.actor, data=jobs.REPORT | {"service_curve": CURVE})


def address(variant: Variant) -> str:
    return f"models/{variant.version.model.name}/versions/1/variants/{variant.number}/"


@pytest.mark.django_db
def test_a_report_is_kept_as_json_and_as_a_file_with_plots(three, measured):
    owner, viewer, stranger = three
    listed = viewer.api("GET", f"{address(measured)}reports/").json()["items"]
    newest = owner.api("GET", f"{address(measured)}report/").json()
    assert listed == [newest]
    assert newest["report"]["service_curve"] == CURVE
    one = viewer.api("GET", newest["url"].removeprefix("/api/v1/"))
    assert one.json() == newest
    file = viewer.api("GET", newest["html"].removeprefix("/api/v1/"))
    assert file["Content-Type"].startswith("text/html")
    assert re.search(r'filename="[\w.-]+\.html"', file["Content-Disposition"])
    said = file.content.decode()
    for drawn in (
        "2,600 MHz before, 3,100 MHz after (cpufreq)",
        "Speed-up",
        "Answers",
        "Service curve",
        "2.00× (1.90 to 2.10)",
        "16 items: 18.4 ms",
    ):
        assert drawn in said
    assert not re.search(r"<script|https?:|(?:src|href)=", said)
    for found in ("report/", "reports/", f"reports/{newest['id']}/", f"reports/{newest['id']}/html/"):
        assert code(stranger.api("GET", address(measured) + found)) == (404, "not_found")


@pytest.mark.parametrize(
    ("metric", "cell", "row", "parent"),
    [
        ("cosine", "0.9930 cosine to the parent", "Cosine to the parent", 1.0),
        (None, "99.3 % agree", "Same answer as the parent", 100.0),
    ],
)
def test_agreement_is_said_as_the_task_measures_it(
    metric: str | None, cell: str, row: str, parent: float
) -> None:
    agreement = {"value": 0.993, "low": 0.992, "high": 0.994, "n": 100, "confidence": 0.95}
    measure = "cosine to the parent" if metric else "accuracy"
    accuracy = jobs.REPORT["accuracy"] | {"basis": "evaluation_set", "metric": metric, "measure": measure}
    data = jobs.REPORT | {"accuracy": accuracy | {"agreement": agreement}}
    assert reports.loss(data) == cell
    shown = reports.presented(data)
    (line,) = (each for each in shown["rows"] if each.measure == row)
    assert (line.parent, line.ratio, line.low) == (parent, 0.993, 0.992)
    assert shown["answers"]["by_task"] is bool(metric)
    assert "Agreement is not accuracy" in shown["answers"]["caution"]


@pytest.mark.django_db
def test_a_report_is_found_below_its_own_variant_only(three, measured):
    owner, _, _ = three
    other = made(owner.actor)
    report = Report.objects.get(variant=other)
    assert code(owner.api("GET", f"{address(measured)}reports/{report.pk}/html/")) == (404, "not_found")


@pytest.mark.django_db
@pytest.mark.parametrize("data", [{"version": 1}, {"timings": [], "accuracy": None, "machine": None}])
def test_a_report_that_measured_nothing_is_a_file_all_the_same(three, measured, data):
    owner, _, _ = three
    Report.objects.filter(variant=measured).update(data=data)
    report = Report.objects.get(variant=measured)
    file = owner.api("GET", f"{address(measured)}reports/{report.pk}/html/")
    assert file.status_code == 200
    assert b"<svg" not in file.content


@pytest.mark.django_db
def test_names_from_a_report_are_text_in_its_file(three, measured):
    owner, _, _ = three
    machine = jobs.REPORT["machine"] | {"cpu_model": "<script>x</script>"}
    Report.objects.filter(variant=measured).update(data=jobs.REPORT | {"machine": machine})
    report = Report.objects.get(variant=measured)
    said = owner.api("GET", f"{address(measured)}reports/{report.pk}/html/").content
    assert b"<script>" not in said
    assert b"&lt;script&gt;" in said


ratios = st.floats(0.001, 1000)


@given(
    st.lists(st.tuples(ratios, ratios, ratios, st.one_of(st.none(), st.floats(0, 5))), min_size=1, max_size=5)
)
def test_whatever_was_measured_is_drawn_inside_the_plot(rows: list[tuple[float, ...]]) -> None:
    timings = [
        {"batch_size": size, "spread": spread}
        | {"speedup": dict(zip(("low", "value", "high"), sorted(three), strict=True))}
        for size, (*three, spread) in enumerate(rows, start=1)
    ]
    drawn = plots.speedups({"timings": timings})
    assert drawn is not None
    assert 1 <= len(drawn.ticks) <= plots.MOST_TICKS
    for mark in drawn.marks:
        assert drawn.left <= mark.low_x <= mark.at_x <= mark.high_x <= drawn.right + 0.5
        assert 0 <= mark.y <= drawn.floor
    assert drawn.line_x is not None
    assert drawn.left <= drawn.line_x <= drawn.right


def test_an_interval_without_ends_reaches_from_side_to_side():
    unknown: dict[str, Any] = {"value": 1.5, "low": 0.0, "high": None, "n": 3, "confidence": 0.95}
    drawn = plots.speedups({"timings": [{"batch_size": 1, "spread": None, "speedup": unknown}]})
    assert drawn is not None
    assert (drawn.marks[0].low_x, drawn.marks[0].high_x) == (drawn.left, drawn.right)
    assert drawn.marks[0].text == "1.50× (0 to –)"


@pytest.mark.django_db
def test_the_drawings_are_well_formed(three, measured):
    owner, _, _ = three
    report = Report.objects.get(variant=measured)
    said = owner.api("GET", f"{address(measured)}reports/{report.pk}/html/").content.decode()
    found = re.findall(r"<svg.*?</svg>", said, re.DOTALL)
    assert len(found) == 3
    for one in found:
        ElementTree.fromstring(one)


@given(st.floats(0.01, 1000), st.lists(st.tuples(st.integers(1, 64), st.floats(0.01, 1000)), min_size=1))
def test_a_million_cost_what_the_hours_cost_that_they_take(
    price: float, points: list[tuple[int, float]]
) -> None:
    found = costs.cheapest(points, price)
    assert found is not None
    hours = [1_000_000 / size * took_ms / 1000 / 3600 for size, took_ms in points]
    assert found.per_million == pytest.approx(price * min(hours))


@pytest.mark.django_db
def test_the_cost_is_shown_at_the_readers_price(three, measured):
    _, viewer, _ = three
    answer = viewer.api("GET", f"{address(measured)}report/?price_per_hour=0.36").json()["cost"]
    best = CURVE[-1]["median_ms"]
    assert answer["price_per_hour"] == 0.36
    assert answer["variant"]["batch_size"] == 16
    assert answer["variant"]["per_million"] == pytest.approx(0.36 * best / 16 / 3.6)
    assert answer["parent"]["per_million"] == pytest.approx(0.36 * 20 / 8 / 3.6)
    assert viewer.api("GET", f"{address(measured)}report/").json()["cost"] is None
    page = viewer.browser.get(f"{measured.get_absolute_url()}?price_per_hour=0.36").content.decode()
    assert "in batches of 16" in page


@pytest.mark.django_db
@pytest.mark.parametrize("price", ["0", "-1", "nan", "1e9", "٣", "1,5", "9" * 30, "<b>"])
def test_what_is_no_price_is_told_beside_its_field(three, measured, price):
    owner, _, _ = three
    asked = owner.api("GET", f"{address(measured)}report/?price_per_hour={price}")
    assert code(asked) == (400, "invalid_price_per_hour")
    page = owner.browser.get(measured.get_absolute_url(), {"price_per_hour": price})
    assert page.status_code == 200
    assert "such as 0.45" in page.content.decode()
    assert "<b>" not in page.content.decode()


@pytest.mark.django_db
def test_the_variants_of_a_version_stand_side_by_side_in_its_csv(three, measured):
    _, viewer, _ = three
    answer = viewer.browser.get(f"{measured.version.get_absolute_url()}?part=csv")
    original, row = csv.DictReader(io.StringIO(b"".join(answer).decode()))
    assert (original["speedup_batch_1"], original["measured_at"]) == ("", "")
    assert (row["speedup_batch_8"], row["speedup_batch_8_low"], row["speedup_batch_8_high"]) == (
        "2.0",
        "1.9",
        "2.1",
    )
    assert (row["basis"], row["loss"], row["processor"]) == ("labels", "0.01", "Test CPU")
