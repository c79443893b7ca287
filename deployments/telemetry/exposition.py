"""Reads Prometheus text pages, cheaply and without trusting them.

A replica prints the same series at every scrape, so the texts before the values are compared with those of
its last page, and looked up in a cache of the target's own where they differ (`PageReader`). Only a line that
is new is parsed, and only one that is unusual (escapes, exemplars with timestamps, odd spacing) goes through
`prometheus_client.parser`.

Pages come from serving software that runs users' models: bytes, lines, samples and the characters given to
the slow parser are all bounded, and what breaks a bound is a `BadPage` with one of `BadPageReason`, never a
long pause.

Refused: one cache for all targets (series of replicas that are gone would stay), and parsing HELP and TYPE
(what a name means is said by the stack's metrics map).
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from sys import intern
from typing import Final

from prometheus_client.parser import text_string_to_metric_families


class BadPageReason(StrEnum):
    BODY_TOO_LARGE = "body_too_large"
    TOO_MANY_SAMPLES = "too_many_samples"
    NOT_TEXT = "not_text"
    UNREADABLE_LINE = "unreadable_line"
    TOO_UNUSUAL = "too_unusual"
    NOT_FINITE = "not_finite"
    CONTENT_TYPE = "content_type"
    CONTENT_ENCODING = "content_encoding"
    TOO_MANY_SERIES = "too_many_series"


class BadPage(Exception):
    """The page cannot be used; `reason` is stable, `detail` shows what was seen."""

    def __init__(self, reason: BadPageReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class PageLimits:
    body_bytes: int = 2_000_000
    samples: int = 50_000
    # The slow parser reads about 3 characters a microsecond; this bounds its pause to about 0.1 s a page.
    unusual_chars: int = 200_000


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One parsed series. `text` is how the page writes it: the key by which it is known at the next
    scrape."""

    text: str
    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """The samples of a page in its order, as two columns.

    `series` is the very same tuple from page to page for as long as the reader sees the same series in the
    same order, so what is derived from it may be kept.
    """

    series: tuple[Series, ...] = ()
    values: Sequence[float] = ()

    def __iter__(self) -> Iterator[tuple[Series, float]]:
        return zip(self.series, self.values, strict=True)

    def __len__(self) -> int:
        return len(self.series)


NO_PAGE: Final = Page()


_LABEL: Final = r'[a-zA-Z_][a-zA-Z0-9_]*="[^"\\\n]*"'
_USUAL: Final = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{((?:{_LABEL}(?:,{_LABEL})*)?),?\}})?")
_LABELS: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\\n]*)"')
_TIMESTAMP: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_EXEMPLAR: Final = " # {"


@dataclass(kw_only=True)
class PageReader:
    """Reads the pages of one target; keeps the series of about its last page between calls.

    `names` are the sample names that are wanted (all when None); lines of others are skipped unread. With
    `finite` a wanted sample that is NaN or infinite makes the page bad.
    """

    names: Collection[str] | None = None
    finite: bool = False
    limits: PageLimits = field(default_factory=PageLimits)
    _known: dict[str, Series] = field(default_factory=dict, init=False, repr=False)
    _heads: list[str] | None = field(default=None, init=False, repr=False)
    _places: list[int] = field(default_factory=list, init=False, repr=False)
    _page: Page = field(default=NO_PAGE, init=False, repr=False)
    _prefixes: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = frozenset(self.names) if self.names is not None else None
        self.names = names
        # A line that opens with a brace carries its name inside: always worth a look.
        self._prefixes = () if names is None else (*_shortest_prefixes(names), "{")

    def read(self, body: bytes) -> Page:
        """The wanted samples in page order. Raises BadPage. CPU only: about 0.3 us a wanted line, 0.1
        another."""
        parts = [line.rpartition(" ") for line in self._lines(body)]
        heads = [part[0] for part in parts]
        page = self._as_before(parts) if heads == self._heads else self._anew(parts, heads)
        if self.finite:
            _refuse_not_finite(page)
        return page

    def _as_before(self, parts: list[tuple[str, str, str]]) -> Page:
        """A page that has the layout of the last one: only the values are read."""
        try:
            return Page(self._page.series, [float(parts[place][2]) for place in self._places])
        except ValueError:
            raise next(_unreadable("".join(part)) for part in parts if not _is_number(part[2])) from None

    def _anew(self, parts: list[tuple[str, str, str]], heads: list[str]) -> Page:
        series: list[Series] = []
        values: list[float] = []
        places: list[int] = []
        unusual = 0
        for place, part in enumerate(parts):
            found, value, cost = self._read_line(part)
            unusual += cost
            if unusual > self.limits.unusual_chars:
                raise BadPage(BadPageReason.TOO_UNUSUAL, f"over {self.limits.unusual_chars} characters")
            if found is not None:
                series.append(found)
                values.append(value)
                places.append(place)
        known = self._known
        if len(known) > 2 * len(heads) + 64:
            self._known = known = {head: known[head] for head in heads if head in known}
        # A head that holds a value (before a timestamp) is new every time; such a page is always read anew.
        self._heads = heads if all(head in known for head in heads) else None
        self._places = places
        same = tuple(series) == self._page.series
        self._page = Page(self._page.series if same else tuple(series), values)
        return self._page

    def _lines(self, body: bytes) -> list[str]:
        if len(body) > self.limits.body_bytes:
            raise BadPage(BadPageReason.BODY_TOO_LARGE, f"over {self.limits.body_bytes} bytes")
        # Comments are at most two for a family. Counting lines is skipped where the bytes cannot hold so many.
        most = 3 * self.limits.samples
        if len(body) > most and body.count(b"\n") > most:
            raise BadPage(BadPageReason.TOO_MANY_SAMPLES, f"over {self.limits.samples} samples")
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise BadPage(BadPageReason.NOT_TEXT, f"byte {error.start} is not UTF-8") from None
        lines = text.split("\n")
        if "\n " in text or "\n\t" in text or text[:1].isspace():
            lines = [line.lstrip() for line in lines]
        if self._prefixes:
            lines = [line for line in lines if line.startswith(self._prefixes)]
        else:
            lines = [line for line in lines if line[:1] != "#" and line.strip()]
        if len(lines) > self.limits.samples:
            raise BadPage(BadPageReason.TOO_MANY_SAMPLES, f"over {self.limits.samples} samples")
        return lines

    def _read_line(self, part: tuple[str, str, str]) -> tuple[Series | None, float, int]:
        """The series, or None when it is not wanted; its value; the characters the slow parser was given."""
        line = "".join(part)
        if (series := self._known.get(part[0])) is not None:
            return self._wanted(series, part[2], line)
        for usual in (line, line.partition(_EXEMPLAR)[0]):
            head, _, tail = usual.rpartition(" ")
            if (series := self._usual_series(head)) is not None:
                return self._wanted(series, tail, line)
            inner, _, value = head.rpartition(" ")
            if value and _TIMESTAMP.fullmatch(tail) and (series := self._usual_series(inner)) is not None:
                return self._wanted(series, value, line)
        series, number = _read_unusual(line)
        if part[0].endswith("}") and _EXEMPLAR not in line:
            self._known[part[0]] = series
        return (series if self._wants(series) else None), number, len(line)

    def _usual_series(self, head: str) -> Series | None:
        """The series that `head` spells in full and without anything odd; remembered. None when it is odd."""
        series = self._known.get(head)
        if series is None and (found := _USUAL.fullmatch(head)):
            # Thousands of replicas print the same names, labels and boundaries: one string each for all of them.
            labels = {intern(name): intern(value) for name, value in _LABELS.findall(found[2] or "")}
            series = self._known[head] = Series(head, intern(found[1]), labels)
        return series

    def _wants(self, series: Series) -> bool:
        return self.names is None or series.name in self.names

    def _wanted(self, series: Series, value: str, line: str) -> tuple[Series | None, float, int]:
        if not self._wants(series):
            return None, 0.0, 0
        try:
            return series, float(value), 0
        except ValueError:
            raise _unreadable(line) from None


def _read_unusual(line: str) -> tuple[Series, float]:
    """By the full parser. The series' text is spelled as a plain exporter would, so that it is stable."""
    try:
        family = next(iter(text_string_to_metric_families(line)))
        sample = family.samples[0]
    except (ValueError, IndexError, StopIteration):
        raise _unreadable(line) from None
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())
    text = f"{sample.name}{{{labels}}}" if labels else sample.name
    return Series(text, sample.name, sample.labels), float(sample.value)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _shortest_prefixes(names: Collection[str]) -> tuple[str, ...]:
    """The names that no other of them begins."""
    kept: list[str] = []
    for name in sorted(names):
        if not kept or not name.startswith(kept[-1]):
            kept.append(name)
    return tuple(kept)


def _refuse_not_finite(page: Page) -> None:
    # NaN and infinity survive a sum, so one addition per sample finds them; `le="+Inf"` is a label.
    if math.isfinite(sum(page.values)):
        return
    for series, value in page:
        if not math.isfinite(value):
            raise BadPage(BadPageReason.NOT_FINITE, f"{series.text[:200]} is {value}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _unreadable(line: str) -> BadPage:
    return BadPage(BadPageReason.UNREADABLE_LINE, line[:200])


def read_page(body: bytes) -> Page:
    """All samples of a single page, when there will be no second one."""
    return PageReader().read(body)
