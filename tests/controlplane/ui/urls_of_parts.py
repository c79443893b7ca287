"""Addresses for driving the parts in a browser: the style guide, a part that ticks, and a stream to tick it by."""

import queue
from collections.abc import Iterator

from django import forms
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.template import engines
from django.urls import include, path

from controlplane.ui import styleguide
from controlplane.urls import handler400, handler403, handler404, handler500
from controlplane.urls import urlpatterns as product

__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]

PART = """{% extends "base.html" %}{% load components %}
{% block title %}Part{% endblock %}
{% block frame %}{% rail %}
<header class="topbar">{% include "components/topbar.html" %}</header>{% endblock %}
{% block content %}
<div id="part" {% live "job:12" select="part" %} data-announce="{{ ending }}">
<p id="count">{{ count }}</p><button type="button" class="button">Press</button>
<label for="word">Word</label><input id="word">
<details id="more"><summary>More</summary>Here</details></div>
{% endblock %}"""


LIST = """{% extends "base.html" %}{% load components %}
{% block title %}List{% endblock %}
{% block frame %}{% rail %}
<header class="topbar">{% include "components/topbar.html" %}</header>{% endblock %}
{% block content %}
{% include "components/filters.html" with target="list" %}
<div id="list" {% live "job:12" select="list" %}>
<p id="count">{{ count }}</p>{% include "components/pagination.html" %}</div>
{% endblock %}"""


class Filter(forms.Form):
    q = forms.CharField(required=False, label="Name", widget=forms.SearchInput)


class Ticks:
    """Sends to every open stream; `refuse` turns new ones away, `send(None)` ends the open ones."""

    def __init__(self) -> None:
        self.streams: set[queue.Queue[str | None]] = set()
        self.refuse = False
        self.asked = 0
        self.ending = ""

    def send(self, topic: str | None) -> None:
        for stream in list(self.streams):
            stream.put(topic)

    def stream(self) -> Iterator[str]:
        mine: queue.Queue[str | None] = queue.Queue()
        self.streams.add(mine)
        yield "retry: 200\nevent: hello\ndata: \n\n"
        while (topic := mine.get()) is not None:
            yield f"event: {topic}\ndata: \n\n"
        self.streams.discard(mine)


ticks = Ticks()


@login_not_required
def events(request: HttpRequest) -> HttpResponseBase:
    if ticks.refuse:
        return HttpResponse(status=503)
    return StreamingHttpResponse(ticks.stream(), content_type="text/event-stream")


@login_not_required
def part(request: HttpRequest) -> HttpResponse:
    ticks.asked += 1
    page = engines["django"].from_string(PART)
    return HttpResponse(page.render({"count": ticks.asked, "ending": ticks.ending}, request))


@login_not_required
def listing(request: HttpRequest) -> HttpResponse:
    """A list with a filter and a total that loads apart."""
    if request.GET.get("part") == "total":
        return HttpResponse("of 10,000+")
    ticks.asked += 1
    page = engines["django"].from_string(LIST)
    shown = {"shown": "50 rows", "total_url": "?part=total", "csv_url": "?part=csv"}
    return HttpResponse(
        page.render({"count": ticks.asked, "form": Filter(request.GET), "listing": shown}, request)
    )


urlpatterns = [
    path("live/events", events),
    path("part/", part),
    path("list/", listing),
    path("", include((styleguide.urlpatterns, "guide"))),
    *product,
]
