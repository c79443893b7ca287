"""How single values look on a page: `{% load presentation %}`.

    {% badge job.state %}                     icon, word and colour of a state (core.vocabulary)
    {% badge state detail="12 s left" %}      with a muted addition
    {% icon "copy" %}                         one of the icon sheet; decorative. label="..." gives it a name
    {% time job.created_at %}                 relative, absolute on hover; {% time t "absolute" %}, {% time t "both" %}
    {% bytes artifact.size_bytes %}           1.23 MiB
    {% number 12.345 "ms" %}                  12.3 ms, the unit muted; None is a dash
    {% duration elapsed_s %}                  3 min 5 s; whole=True for what still counts
    {% count 12345 %}                         12,345, exact
    {% delta ratio low high better="lower" %} −49 % (−52 to −45 %), coloured only where the interval excludes 1
    {% sparkline values label="p99" unit="ms" target=50 %}
    {% interval ratio low high span=4 %}      an interval bar against the parent
    {% copy text label="Copy address" %}      a copy button; {% code text length=12 %} the text, shortened, with one
    {% query_with page=2 sort=None %}         this page's query string with changes; None removes

Each returns finished, escaped HTML without style attributes. Refused: tags that query, and tags that decide a
state: a template shows what a selector found.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django import template
from django.http import QueryDict
from django.template import Context
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

from controlplane.core import drawings, formats
from controlplane.core.formats import NOTHING, Quantity
from controlplane.core.vocabulary import Word, word_of

register = template.Library()


@register.filter
def pairs(document: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The names and values of a document. `document.items` is the value of its key "items", if it has one."""
    return list(document.items())


@register.filter
def document(value: Any) -> str:
    """A text as it is, and anything else as the API would write it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@register.simple_tag
def icon(name: str, label: str = "", extra: str = "") -> SafeString:
    sheet = static("ui/icons.svg")
    if label:
        return format_html(
            '<svg class="icon {}" role="img" aria-label="{}"><use href="{}#{}"/></svg>',
            extra,
            label,
            sheet,
            name,
        )
    return format_html(
        '<svg class="icon {}" aria-hidden="true" focusable="false"><use href="{}#{}"/></svg>',
        extra,
        sheet,
        name,
    )


@register.simple_tag
def badge(state: Any, detail: str = "") -> SafeString:
    word = word_of(state)
    more = format_html(' <span class="badge-detail">{}</span>', detail) if detail else ""
    return format_html(
        '<span class="badge" data-tone="{}" data-icon="{}">{}<span>{}</span>{}</span>',
        *(word.tone, word.icon, icon(word.icon), word.label, more),
    )


@register.simple_tag
def word(state: Any) -> Word:
    """`{% word step.state as word %}`: the word itself, where a part lays it out its own way."""
    return word_of(state)


@register.simple_tag
def tag(text: Any, tone: str = "") -> SafeString:
    """A small label that is not a state: an alias, a technique, a version."""
    return format_html('<span class="tag" data-tone="{}">{}</span>', tone, text)


def _quantity(value: Quantity) -> SafeString:
    if not value.unit:
        return format_html('<span class="num">{}</span>', value.text)
    return format_html('<span class="num">{}<span class="unit"> {}</span></span>', value.text, value.unit)


@register.simple_tag
def number(value: float | None, unit: str = "") -> SafeString:
    return _quantity(formats.quantity(value, unit))


@register.simple_tag(name="bytes")
def size(size_bytes: float | None) -> SafeString:
    return _quantity(formats.size(size_bytes))


@register.simple_tag
def duration(duration_s: float | None, whole: bool = False) -> SafeString:
    return _quantity(formats.duration(duration_s, whole=whole))


@register.simple_tag
def count(value: int | None) -> SafeString:
    return format_html('<span class="num">{}</span>', NOTHING if value is None else f"{value:,}")


@register.simple_tag
def time(moment: datetime | None, style: str = "relative") -> SafeString:
    """The reader's zone is put in by times.js; without it the moment is said in UTC."""
    if moment is None:
        return format_html('<span class="num">{}</span>', NOTHING)
    absolute = formats.absolute(moment)
    text = {
        "relative": formats.relative(moment, now=datetime.now(UTC)),
        "absolute": absolute,
        "both": f"{formats.relative(moment, now=datetime.now(UTC))} · {absolute}",
    }[style]
    return format_html(
        '<time class="num" datetime="{}" data-time="{}" title="{}">{}</time>',
        formats.machine(moment),
        style,
        absolute,
        text,
    )


def _direction(low: float, high: float, better: str) -> str:
    if not better or low <= 1 <= high:
        return ""
    falls = high < 1
    return "ok" if falls == (better == "lower") else "failed"


@register.simple_tag
def delta(
    ratio: float | None,
    low: float | None = None,
    high: float | None = None,
    better: str = "",
    points_of: float | None = None,
) -> SafeString:
    """`ratio` is new / old. `better` is "lower" or "higher"; without it, or where 1 is inside, there is no colour.

    With `points_of`, the old share in percent, the change is said in points; a template's empty text is none.
    """
    if ratio is None:
        return format_html('<span class="num">{}</span>', NOTHING)
    low, high = (ratio if low is None else low), (ratio if high is None else high)
    tone = _direction(low, high, better)
    arrow = icon("up" if ratio > 1 else "down") if tone else ""
    between = ""
    if low != high:
        between = format_html(
            ' <span class="unit">({} to {})</span>',
            _change(low, points_of).rpartition(" ")[0],
            _change(high, points_of),
        )
    return format_html(
        '<span class="delta num" data-tone="{}">{}{}{}</span>',
        tone,
        arrow,
        _change(ratio, points_of),
        between,
    )


def _change(ratio: float, points_of: float | None) -> str:
    return formats.signed_points(ratio, of=points_of) if points_of else formats.signed_percent(ratio)


@register.simple_tag
def sparkline(
    values: Sequence[float | None],
    label: str = "",
    unit: str = "",
    target: float | None = None,
    tone: str = "",
    width: int = 96,
    height: int = 24,
) -> SafeString:
    """The picture says its range and last value in words to those who do not see it."""
    known = [value for value in values if value is not None]
    if not known:
        return format_html('<span class="sparkline-none">{}</span>', f"no {label or 'data'} yet")
    drawn = drawings.sparkline(values, width=width, height=height, target=target)
    low, high, last = (formats.quantity(value, unit) for value in (min(known), max(known), known[-1]))
    said = f"{label or 'Trend'}: from {low} to {high}, last {last}"
    line = (
        format_html(
            '<line class="sparkline-target" x1="0" x2="{}" y1="{}" y2="{}"/>',
            width,
            drawn.target_y,
            drawn.target_y,
        )
        if drawn.target_y is not None
        else ""
    )
    dot = format_html('<circle cx="{}" cy="{}" r="2"/>', *drawn.last) if drawn.last else ""
    return format_html(
        '<svg class="sparkline" data-tone="{}" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">'
        '<path class="sparkline-area" d="{}"/>{}<path class="sparkline-line" d="{}"/>{}</svg>',
        *(tone, width, height, width, height, said, drawn.area, line, drawn.line, dot),
    )


@register.simple_tag
def interval(
    ratio: float | None,
    low: float | None,
    high: float | None,
    better: str = "",
    span: float = 4.0,
    points_of: float | None = None,
) -> SafeString:
    """Where a ratio and its interval lie against the parent (the line in the middle)."""
    if ratio is None or low is None or high is None:
        return format_html('<span class="num">{}</span>', NOTHING)
    drawn = drawings.interval(ratio=ratio, low=low, high=high, span=span)
    at, least, most = (_change(value, points_of) for value in (ratio, low, high))
    said = f"{at}, interval {least} to {most}"
    return format_html(
        '<svg class="interval" data-tone="{}" viewBox="0 0 {} 16" width="{}" height="16" role="img" aria-label="{}">'
        '<path class="interval-axis" d="M0 8H{}"/><path class="interval-parent" d="M{} 1V15"/>'
        '<path class="interval-range" d="M{} 8H{}"/><circle cx="{}" cy="8" r="3.5"/></svg>',
        *(_direction(low, high, better), drawn.width, drawn.width, said, drawn.width, drawn.parent_x),
        *(drawn.low_x, max(drawn.high_x, drawn.low_x + 0.1), drawn.at_x),
    )


@register.simple_tag
def copy(text: Any, label: str = "Copy") -> SafeString:
    return format_html(
        '<button type="button" class="copy" data-copy="{}" aria-label="{}" title="{}">{}{}</button>',
        *(text, label, label, icon("copy"), icon("check", "", "copy-done")),
    )


@register.simple_tag
def code(text: Any, length: int = 0, label: str = "Copy") -> SafeString:
    """Machine text with a copy button. `length` shortens what is shown, never what is copied."""
    whole = str(text)
    shown = whole if not length or len(whole) <= length else whole[:length] + "…"
    return format_html(
        '<span class="copyable"><code title="{}">{}</code>{}</span>', whole, shown, copy(whole, label)
    )


@register.simple_tag(takes_context=True)
def query_with(context: Context, **changes: Any) -> str:
    """This page's query with `changes`, starting with `?`. A list sets several values, None removes."""
    query = QueryDict(mutable=True)
    if "request" in context:
        query = context["request"].GET.copy()
    for name, value in changes.items():
        if value is None:
            query.pop(name, None)
        else:
            query.setlist(
                name, [str(item) for item in (value if isinstance(value, list | tuple) else [value])]
            )
    return f"?{query.urlencode()}"
