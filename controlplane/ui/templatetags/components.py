"""The larger parts a page is made of: `{% load components %}`.

Blocks, with the content between:
    {% panel title="Load" note="last hour" %}…{% endpanel %}
    {% dialog "stop-load" title="Stop the load?" %}…{% enddialog %}      opened by <button data-dialog="stop-load">
    {% empty icon="models" title="No models yet" %}…{% endempty %}
    {% alert tone="warning" title="…" %}…{% endalert %}
    {% verdict report.verdict %}sentence{% endverdict %}
    {% disclosure "3 replicas more" %}…{% enddisclosure %}

Single:
    {% field form.name %}, {% fields form %}, {% error_summary form %}   label, control, help and errors, tied by ids
    {% api_panel "POST" "/api/v1/jobs/" body=example %}                   the same verb as curl and Python
    {% snippet text title="curl" %}                                      code with a copy button
    {% live "job:12" url every="15s" %}                                  attributes: refresh this element on a tick
    {% confirm_name model.name %}                                        typing the name unlocks the button
    {% charts series_url topic="metrics:7" csv_url=… target_ms=50 %}     the charts of a deployment
    {% column listing "name" "Name" %}                                   the head of a column that sorts
    {% page_sizes as sizes %}                                            links to more or fewer rows of a list
    {% rail %}, {% link "registry:models" as url %}                      addresses that may not exist yet

Templates stand in templates/components/, one per part, with what they take at their head. Refused: a component
framework; Django's block tags and includes are enough for thirty parts.
"""

import json
import shlex
from typing import Any, cast

from django import template
from django.forms import BaseForm, BoundField
from django.http import HttpRequest
from django.template import Context
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from controlplane.core.lists import Listing
from controlplane.core.pagination import DEFAULT_LIMIT, MAX_LIMIT
from controlplane.core.templatetags.presentation import query_with
from controlplane.core.vocabulary import word_of

register = template.Library()

PLACES = (
    ("ui:overview", "Overview", "overview", "o"),
    ("registry:models", "Models", "models", "m"),
    ("optimizer:jobs", "Jobs", "jobs", "j"),
    ("deployments:deployments", "Deployments", "deployments", "d"),
    ("targets:targets", "Targets", "targets", "c"),
    ("optimizer:workers", "Workers", "workers", "w"),
    ("accounts:activity", "Activity", "activity", "a"),
    ("accounts:settings", "Settings", "settings", "s"),
)


def _address(name: str) -> str:
    """Empty where the address does not exist, so that one missing page does not take the frame down."""
    try:
        return reverse(name)
    except NoReverseMatch:
        return ""


@register.simple_tag
def link(name: str) -> str:
    return _address(name)


@register.inclusion_tag("components/rail.html", takes_context=True)
def rail(context: Context) -> dict[str, Any]:
    """The current place is the one with the longest address that the path starts with."""
    request = cast(HttpRequest | None, context.get("request"))
    path = request.path if request is not None else ""
    places = [
        {"name": name, "label": label, "icon": icon, "key": key, "url": _address(name)}
        for name, label, icon, key in PLACES
    ]
    home = _address("ui:overview") or "/"
    here = max(
        (place["url"] for place in places if place["url"] and path.startswith(place["url"])),
        key=len,
        default="",
    )
    if here == home and path != home:
        here = ""
    return {
        "places": [place | {"current": bool(here) and place["url"] == here} for place in places],
        "home": home,
    }


@register.simple_block_tag(end_name="endpanel")
def panel(
    content: str, title: str = "", note: str = "", actions: str = "", level: int = 2, id: str = ""
) -> str:
    return render_to_string(
        "components/panel.html",
        {"content": content, "title": title, "note": note, "actions": actions, "level": level, "id": id},
    )


@register.simple_block_tag(end_name="enddialog")
def dialog(content: str, id: str, title: str, wide: bool = False) -> str:
    return render_to_string(
        "components/dialog.html", {"content": content, "id": id, "title": title, "wide": wide}
    )


@register.simple_block_tag(end_name="endempty")
def empty(content: str, title: str, icon: str = "info", level: int = 2) -> str:
    return render_to_string(
        "components/empty.html", {"content": content, "title": title, "icon": icon, "level": level}
    )


@register.simple_block_tag(end_name="endalert")
def alert(content: str, title: str = "", tone: str = "unknown") -> str:
    return render_to_string("components/alert.html", {"content": content, "title": title, "tone": tone})


@register.simple_block_tag(end_name="endverdict")
def verdict(content: str, state: Any, actions: str = "") -> str:
    return render_to_string(
        "components/verdict.html", {"content": content, "word": word_of(state), "actions": actions}
    )


@register.simple_block_tag(end_name="enddisclosure")
def disclosure(content: str, summary: str, open: bool = False, id: str = "") -> str:
    return render_to_string(
        "components/disclosure.html", {"content": content, "summary": summary, "open": open, "id": id}
    )


@register.simple_tag
def field(bound: BoundField, unit: str = "", code: bool = False, optional: bool = True) -> SafeString:
    """Help and errors are tied to the control by Django's aria-describedby and aria-invalid."""
    return mark_safe(  # noqa: S308 - rendered by a template that escapes
        render_to_string(
            "components/field.html", {"field": bound, "unit": unit, "code": code, "optional": optional}
        )
    )


@register.simple_tag
def fields(form: BaseForm) -> SafeString:
    """Hidden fields, then every visible one in the form's order."""
    hidden = "".join(str(bound) for bound in form.hidden_fields())
    return mark_safe(hidden + "".join(field(bound) for bound in form.visible_fields()))  # noqa: S308


@register.inclusion_tag("components/error_summary.html")
def error_summary(form: BaseForm, focus: bool = True) -> dict[str, Any]:
    """Every error with a link to its field, above the form. Nothing where there is none."""
    wrong = [form[name] for name in form.errors if name in form.fields]
    return {"form": form, "wrong": wrong, "general": form.non_field_errors(), "focus": focus}


@register.inclusion_tag("components/snippet.html")
def snippet(text: str, title: str = "") -> dict[str, Any]:
    return {"text": text, "title": title}


def curl(
    *,
    method: str,
    url: str,
    body: Any = None,
    upload: str = "",
    upload_type: str = "application/octet-stream",
    etag: str = "",
) -> str:
    """A line that works when pasted, once SLIPWAY_TOKEN is set.

    `upload` names a file to stream; `url` then has a query, since curl puts the file's name behind an address that
    ends with a slash.
    """
    verb = "" if method == "GET" else f"-X {method} "
    parts = [f"curl {verb}{shlex.quote(url)}", '-H "Authorization: Bearer $SLIPWAY_TOKEN"']
    if etag:
        parts.append(f"-H 'If-Match: \"{etag}\"'")
    if upload:
        parts += [f"-H 'Content-Type: {upload_type}'", f"-T {shlex.quote(upload)}"]
    elif body is not None:
        parts += [
            "-H 'Content-Type: application/json'",
            f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}",
        ]
    return " \\\n  ".join(parts)


def python(*, method: str, url: str, body: Any = None, upload: str = "", etag: str = "") -> str:
    """The same call with nothing but Python's standard library."""
    lines = ["import json, os, urllib.request", ""]
    data, headers = "None", ['"Authorization": f"Bearer {os.environ[\'SLIPWAY_TOKEN\']}"']
    if etag:
        headers.append(f'"If-Match": \'"{etag}"\'')
    if upload:
        data = f"open({upload!r}, 'rb')"
        headers += [
            '"Content-Type": "application/octet-stream"',
            f'"Content-Length": str(os.path.getsize({upload!r}))',
        ]
    elif body is not None:
        data = f"json.dumps({body!r}).encode()"
        headers.append('"Content-Type": "application/json"')
    answer = "urllib.request.urlopen(request)"
    lines += [
        "request = urllib.request.Request(",
        f"    {url!r},",
        f"    method={method!r},",
        f"    data={data},",
        f"    headers={{{', '.join(headers)}}},",
        ")",
        f"print({answer}.status)" if method == "DELETE" else f"print(json.load({answer}))",
    ]
    return "\n".join(lines)


@register.inclusion_tag("components/api_panel.html", takes_context=True)
def api_panel(
    context: Context,
    method: str,
    path: str,
    body: Any = None,
    upload: str = "",
    says: str = "",
    id: str = "api",
    etag: str = "",
) -> dict[str, Any]:
    """`path` is put behind the reader's own address. `says` is one sentence about what the call answers; `etag` is of
    what the reader has seen."""
    request = cast(HttpRequest | None, context.get("request"))
    url = request.build_absolute_uri(path) if request is not None else path
    return {
        "method": method,
        "path": path,
        "says": says,
        "id": id,
        "curl": curl(method=method, url=url, body=body, upload=upload, etag=etag),
        "python": python(method=method, url=url, body=body, upload=upload, etag=etag),
        "docs": _address("api:docs"),
        "tokens": _address("accounts:tokens"),
    }


@register.simple_tag
def live(topics: str, url: str = "", select: str = "", every: str = "") -> SafeString:
    """Attributes that refresh an element by outerMorph when one of `topics` (comma separated) ticks.

    The element needs a stable id. `url` empty asks for this page, filters included; `select` then takes the part
    of the answer with that id. Ticks within 300 ms are one request; after a reconnect everything refreshes.
    `every` ("15s") refreshes it without a tick too: for what grows old when whoever ticks has stopped.
    """
    triggers = [f"live:{topic.strip()} from:document throttle:300ms" for topic in topics.split(",")]
    triggers += ["live:resync from:document", *([f"every {every}"] if every else [])]
    chosen = format_html(' hx-select="#{}"', select) if select else ""
    return format_html(
        'data-live="{}" hx-get="{}" hx-trigger="{}" hx-swap="outerMorph" hx-sync="this:queue last"{}',
        topics,
        url,
        ", ".join(triggers),
        chosen,
    )


@register.inclusion_tag("components/column.html")
def column(listing: Listing[Any], word: str, label: str, number: bool = False) -> dict[str, Any]:
    """Numbers and times begin with the largest; a second click turns the order round."""
    direction = {word: "ascending", f"-{word}": "descending"}.get(listing.sort, "")
    descending = direction == "ascending" or (number and not direction)
    return {
        "url": listing.sort_url(f"-{word}" if descending else word),
        "label": label,
        "number": number,
        "direction": direction,
    }


PAGE_SIZES = (25, DEFAULT_LIMIT, 100, MAX_LIMIT)
CHART_RANGES = ("5m", "15m", "1h", "6h", "24h", "7d", "30d", "all")
CHART_PANELS = (
    ("latency", "Latency", "ms", True, (("p50", "p50"), ("p95", "p95"), ("p99", "p99"))),
    ("throughput", "Throughput", "requests/s", False, (("throughput", "requests"),)),
    ("errors", "Errors", "% of requests", False, (("errors", "errors"),)),
    (
        "queue",
        "Queue and in flight",
        "requests",
        False,
        (("queue_depth", "queue depth"), ("in_flight", "in flight")),
    ),
    ("replicas", "Replicas", "ready", False, (("replicas", "replicas"),)),
)


@register.inclusion_tag("components/charts.html")
def charts(series_url: str, topic: str, csv_url: str = "", target_ms: float | None = None) -> dict[str, Any]:
    panels = [
        {
            "key": key,
            "title": title,
            "unit": unit,
            "wide": wide,
            "series": [{"key": k, "label": n} for k, n in series],
        }
        for key, title, unit, wide, series in CHART_PANELS
    ]
    return {
        "series_url": series_url,
        "topic": topic,
        "csv_url": csv_url,
        "target_ms": target_ms,
        "chart_ranges": CHART_RANGES,
        "chart_panels": panels,
    }


@register.simple_tag(takes_context=True)
def page_sizes(context: Context) -> list[dict[str, Any]]:
    """How many rows a list may show at once, each as a link that keeps the filters and begins at the newest."""
    request = cast(HttpRequest | None, context.get("request"))
    chosen = request.GET.get("limit", "") if request is not None else ""
    return [
        {
            "rows": rows,
            "url": query_with(context, limit=rows, cursor=None, after=None),
            "current": (chosen or str(DEFAULT_LIMIT)) == str(rows),
        }
        for rows in PAGE_SIZES
    ]


@register.inclusion_tag("components/confirm_name.html")
def confirm_name(name: str, id: str = "confirm") -> dict[str, Any]:
    """For what cannot be undone. The server compares too: the field is `confirm`."""
    return {"name": name, "id": id}
