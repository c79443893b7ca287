"""What a replica writes: the last lines in the page, then whatever comes, asked of the target each time.

Nothing is stored: a replica that was replaced takes its log with it, and its rollout keeps the last lines.
"""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_safe

from controlplane.core.addresses import whole_number
from controlplane.core.errors import SlipwayError
from deployments import selectors, services
from deployments.domain import loglines
from deployments.models import Deployment
from deployments.views import frame

TAIL = 200
MOST = 5000
"""What the target keeps at hand; more than a page that was away for a while has missed."""


@require_safe
def logs(request: HttpRequest, name: str) -> HttpResponse:
    """`?replica=` chooses; without it, the first that is not ready, else the first. With `?line=`, a line that may be
    older than the last ones, the page has all that are at hand."""
    actor, row = frame.find(request, name)
    seen = selectors.status(row)
    names = [one.name for one in seen.replicas] if seen else []
    unready = [one.name for one in seen.replicas if one.state != "ready"] if seen else []
    chosen = request.GET.get("replica") or next(iter(unready + names), "")
    tail = MOST if request.GET.get("line") else TAIL
    lines, refusal = _lines(row, chosen, tail=tail) if chosen else ([], None)
    query = urlencode({"replica": chosen})
    return frame.page(
        request,
        actor,
        row,
        tab="logs",
        status=refusal.status if refusal else 200,
        replicas=list(seen.replicas) if seen else [],
        chosen=chosen,
        events=lines,
        refusal=refusal,
        tail=TAIL,
        lines_url=f"{reverse('deployments:log-lines', args=[row.name])}?{query}",
        download_url=f"{reverse('deployments:log-text', args=[row.name])}?{query}",
    )


def _lines(
    row: Deployment, replica: str, *, tail: int
) -> tuple[list[loglines.Numbered], SlipwayError | None]:
    try:
        return loglines.numbered(services.replica_log(row, replica, tail=tail)), None
    except SlipwayError as error:
        return [], error


@require_safe
def lines(request: HttpRequest, name: str) -> HttpResponse:
    """What `?replica=` wrote after the line `?after=`, for the log viewer of the page."""
    _, row = frame.find(request, name)
    known = whole_number(request.GET.get("after", ""), digits=19) or 0
    found = loglines.numbered(services.replica_log(row, request.GET.get("replica", ""), tail=MOST))
    return JsonResponse({"events": [_event(line) for line in found if line.id > known]})


def _event(line: loglines.Numbered) -> dict[str, Any]:
    return {
        "id": line.id,
        "at": line.at.isoformat() if line.at else "",
        "level": line.level,
        "message": line.message,
    }


@require_safe
def text(request: HttpRequest, name: str) -> HttpResponse:
    """All lines at hand, as the replica wrote them."""
    _, row = frame.find(request, name)
    replica = request.GET.get("replica", "")
    found = services.replica_log(row, replica, tail=MOST)
    return HttpResponse(
        "".join(f"{line}\n" for line in found),
        content_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{row.name}-replica.log"'},
    )
