"""Reads Prometheus text pages, cheaply and without trusting them.

A replica prints the same series at every scrape, so the text before the value is looked up in a cache of the
target's own (`PageReader`); only a line that is new is parsed, and only one that is unusual (escapes,
timestamps with exemplars, odd spacing) goes through `prometheus_client.parser`. Measured on a page of 218
lines: SERVING.md 5.1 and `tests/deployments/telemetry/fake_exporter.py`.

Pages come from serving software that runs users' models: bytes, lines, samples and the characters given to
the slow parser are all bounded, and what breaks a bound is a `BadPage` with one of `BadPageReason`, never a
long pause.

Refused: one cache for all targets (series of replicas that are gone would stay), and parsing HELP and TYPE
(what a name means is said by the stack's metrics map).
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
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


# A plain pair: at 100,000 samples a second a named one costs a fifth of the parser's time.
type Sample = tuple[Series, float]


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
    _known: dict[str, Series | None] = field(default_factory=dict, repr=False)
    _prefixes: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = frozenset(self.names) if self.names is not None else None
        self.names = names
        # A line that opens with a brace carries its name inside: always worth a look.
        self._prefixes = () if names is None else (*_shortest_prefixes(names), "{")

    def read(self, body: bytes) -> list[Sample]:
        """The wanted samples in page order. Raises BadPage. CPU only: about 0.15 us a skipped line."""
        lines = self._lines(body)
        known, samples, unusual = self._known, [], 0
        for line in lines:
            head, _, tail = line.rpartition(" ")
            series = known.get(head)
            if series is not None:
                try:
                    samples.append((series, float(tail)))
                except ValueError:
                    raise _unreadable(line) from None
            elif head not in known:
                sample, cost = self._read_new(line)
                if sample is not None:
                    samples.append(sample)
                unusual += cost
                if unusual > self.limits.unusual_chars:
                    raise BadPage(BadPageReason.TOO_UNUSUAL, f"over {self.limits.unusual_chars} characters")
        if self.finite:
            _refuse_not_finite(samples)
        if len(known) > 2 * len(lines) + 64:
            self._forget_all_but(lines)
        return samples

    def _lines(self, body: bytes) -> list[str]:
        if len(body) > self.limits.body_bytes:
            raise BadPage(BadPageReason.BODY_TOO_LARGE, f"over {self.limits.body_bytes} bytes")
        # Comments are at most two for a family, so most pages are settled by the count of lines.
        if body.count(b"\n") > 3 * self.limits.samples:
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

    def _read_new(self, line: str) -> tuple[Sample | None, int]:
        """A line whose series is not known yet, and how many characters the slow parser was given for it."""
        for usual in (line, line.partition(_EXEMPLAR)[0]):
            head, _, tail = usual.rpartition(" ")
            if (series := self._usual_series(head)) is not None:
                return self._sample(series, tail, line), 0
            inner, _, value = head.rpartition(" ")
            if value and _TIMESTAMP.fullmatch(tail) and (series := self._usual_series(inner)) is not None:
                return self._sample(series, value, line), 0
        series, number = _read_unusual(line)
        head, _, tail = line.rpartition(" ")
        if head.endswith("}") and _EXEMPLAR not in line:
            self._known[head] = series if self._wants(series) else None
        return ((series, number) if self._wants(series) else None), len(line)

    def _usual_series(self, head: str) -> Series | None:
        """The series that `head` spells in full and without anything odd; remembered. None when it is odd."""
        series = self._known.get(head)
        if series is None and (found := _USUAL.fullmatch(head)):
            series = Series(head, found[1], dict(_LABELS.findall(found[2] or "")))
            self._known[head] = series if self._wants(series) else None
        return series

    def _wants(self, series: Series) -> bool:
        return self.names is None or series.name in self.names

    def _sample(self, series: Series, value: str, line: str) -> Sample | None:
        if not self._wants(series):
            return None
        try:
            return (series, float(value))
        except ValueError:
            raise _unreadable(line) from None

    def _forget_all_but(self, lines: list[str]) -> None:
        heads = {line.rpartition(" ")[0] for line in lines}
        self._known = {head: series for head, series in self._known.items() if head in heads}


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


def _refuse_not_finite(samples: list[Sample]) -> None:
    # NaN and infinity survive a sum, so one addition per sample finds them; `le="+Inf"` is a label, not a
    # value.
    if math.isfinite(sum(value for _, value in samples)):
        return
    for series, value in samples:
        if not math.isfinite(value):
            raise BadPage(BadPageReason.NOT_FINITE, f"{series.text[:200]} is {value}")


def _unreadable(line: str) -> BadPage:
    return BadPage(BadPageReason.UNREADABLE_LINE, line[:200])


def read_page(body: bytes) -> list[Sample]:
    """All samples of a single page, when there will be no second one."""
    return PageReader().read(body)
