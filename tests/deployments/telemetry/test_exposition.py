"""Pages are read as the full parser reads them, at a fraction of its cost, and within bounds."""

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from deployments.telemetry.exposition import BadPage, BadPageReason, PageLimits, PageReader, read_page
from tests.deployments.telemetry.fake_exporter import METRICS, FakeReplica

names = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,12}", fullmatch=True)
label_names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,8}", fullmatch=True)
label_values = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=12
)
numbers = st.one_of(st.floats(), st.integers(-(10**9), 10**12)).map(repr)
timestamps = st.sampled_from(["", " 1700000000000", " -5"])
gaps = st.sampled_from([" ", " ", " ", "  ", "\t"])
ends = st.sampled_from(["", "", "", " ", "\r"])

type Read = tuple[str, tuple[tuple[str, str], ...], str]


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


@st.composite
def lines(draw: st.DrawFn) -> str:
    labels = draw(st.dictionaries(label_names, label_values, max_size=3))
    inside = ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items())
    comma = draw(st.sampled_from(["", ","])) if labels else ""
    spelled = f"{draw(names)}{{{inside}{comma}}}" if labels else draw(names)
    return f"{spelled}{draw(gaps)}{draw(numbers)}{draw(timestamps)}{draw(ends)}"


comments = st.sampled_from(["", "# EOF", "# HELP some_name Some text.", "#", "# just a note {x=1} 5"])
pages = st.lists(st.one_of(lines(), lines(), lines(), comments), max_size=20).map("\n".join)


def ours(page: str, reader: PageReader | None = None) -> list[Read]:
    samples = (reader or PageReader()).read(page.encode())
    return [(series.name, tuple(sorted(series.labels.items())), repr(value)) for series, value in samples]


def theirs(page: str) -> list[Read]:
    return [
        (sample.name, tuple(sorted(sample.labels.items())), repr(float(sample.value)))
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]


@given(page=pages)
def test_a_page_reads_as_the_full_parser_reads_it(page: str) -> None:
    reader = PageReader()
    first, second = ours(page, reader), ours(page, reader)
    assert sorted(first) == sorted(theirs(page))
    assert second == first


@given(before=pages, page=pages)
def test_what_was_read_before_changes_nothing(before: str, page: str) -> None:
    reader = PageReader()
    ours(before, reader)
    assert ours(page, reader) == ours(page)


@given(page=pages, wanted=st.sets(names, max_size=3), data=st.data())
def test_a_filter_keeps_exactly_the_wanted_names(page: str, wanted: set[str], data: st.DataObject) -> None:
    everything = ours(page)
    if everything:
        wanted |= {data.draw(st.sampled_from(everything))[0]}
    assert ours(page, PageReader(names=wanted)) == [read for read in everything if read[0] in wanted]


@given(body=st.binary(max_size=300))
def test_any_bytes_give_samples_or_a_reason(body: bytes) -> None:
    with suppress(BadPage):
        assert all(isinstance(value, float) for _, value in read_page(body))


def test_values_that_are_not_numbers_of_this_world() -> None:
    values = [value for _, value in read_page(b"a NaN\nb +Inf\nc -Inf\nd 1e-3\n")]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, 0.001]


def test_exemplars_and_timestamps_do_not_make_another_series() -> None:
    reader = PageReader()
    line = 'slipway_latency_seconds_bucket{le="0.5"} '
    pages = [
        line + "7",
        line + '8 # {trace_id="a} 3"} 0.4',
        line + "9 1700000000000",
        line + '9 # {t="x"} 0.1 12.5',
    ]
    read = [next(iter(reader.read(page.encode()))) for page in pages]
    assert [value for _, value in read] == [7, 8, 9, 9]
    assert len({series.text for series, _ in read}) == 1


def test_escaped_labels_cannot_forge_a_value() -> None:
    line = r'errors{reason="say \"5\" # {x} 9\\"} 3'
    reader = PageReader()
    for _ in range(2):
        ((series, value),) = reader.read(line.encode())
        assert (series.labels, value) == ({"reason": r'say "5" # {x} 9' + "\\"}, 3)


def test_unwanted_names_are_not_even_looked_at() -> None:
    page = b"python_info{broken=\nslipway_queue_depth 4\nslipway_queue_depth_limit 9\n"
    samples = PageReader(names={"slipway_queue_depth"}).read(page)
    assert [(series.name, value) for series, value in samples] == [("slipway_queue_depth", 4)]


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (b"a 1\xff\n", BadPageReason.NOT_TEXT),
        (b"a one\n", BadPageReason.UNREADABLE_LINE),
        (b"<html><body>Not found</body></html>\n", BadPageReason.UNREADABLE_LINE),
        (b'a{b="c} 1\n', BadPageReason.UNREADABLE_LINE),
        (b"a" * 2_000_001, BadPageReason.BODY_TOO_LARGE),
        (b"a 1\n" * 50_001, BadPageReason.TOO_MANY_SAMPLES),
        (b"#\n" * 150_001, BadPageReason.TOO_MANY_SAMPLES),
        (b'a{b="\\\\"}  1\n' * 20_000, BadPageReason.TOO_UNUSUAL),
    ],
)
def test_a_bad_page_has_a_reason(page: bytes, reason: BadPageReason) -> None:
    with pytest.raises(BadPage) as bad:
        read_page(page)
    assert bad.value.reason is reason
    assert len(bad.value.detail) <= 200


def test_a_page_at_the_bounds_is_read() -> None:
    assert len(read_page(b"a 1\n" * 50_000)) == 50_000


@pytest.mark.parametrize("value", ["NaN", "Inf", "-Inf"])
def test_a_wanted_sample_that_is_not_finite_makes_the_page_bad(value: str) -> None:
    page = f"gpu_power {value}\nslipway_queue_depth 1\n".encode()
    assert len(PageReader(names={"slipway_queue_depth"}, finite=True).read(page)) == 1
    with pytest.raises(BadPage, match="not_finite"):
        PageReader(names={"gpu_power"}, finite=True).read(page)


def test_large_but_finite_values_are_not_mistaken_for_infinite() -> None:
    assert len(PageReader(finite=True).read(b"a 1e308\nb 1e308\n")) == 2


def test_series_that_are_gone_are_forgotten() -> None:
    reader = PageReader(limits=PageLimits(samples=100))
    for page in range(200):
        reader.read("".join(f'a{{n="{page}-{n}"}} 1\n' for n in range(50)).encode())
    assert len(reader._known) <= 2 * 50 + 64 + 50


def test_a_replicas_page_costs_only_what_is_wanted() -> None:
    replica = FakeReplica("ranker-0")
    replica.serve([0.01, 0.02, 0.5], failed=2)
    page = replica.page()
    wanted = PageReader(names=METRICS.sample_names, finite=True).read(page)
    assert {series.name for series, _ in wanted} == METRICS.sample_names
    assert len(wanted) < len(read_page(page))
