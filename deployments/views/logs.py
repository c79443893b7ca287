"""What a replica wrote last, asked of the target now."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from controlplane.core.errors import SlipwayError
from deployments import selectors, services
from deployments.domain import loglines
from deployments.models import Deployment
from deployments.views import frame

TAIL = 200


@require_safe
def logs(request: HttpRequest, name: str) -> HttpResponse:
    """`?replica=` chooses; without it, the first that is not ready, else the first."""
    actor, row = frame.find(request, name)
    seen = selectors.status(row)
    names = [one.name for one in seen.replicas] if seen else []
    unready = [one.name for one in seen.replicas if one.state != "ready"] if seen else []
    chosen = request.GET.get("replica") or next(iter(unready + names), "")
    lines, refusal = _lines(row, chosen) if chosen else ([], None)
    return frame.page(
        request,
        actor,
        row,
        tab="logs",
        status=refusal.status if refusal else 200,
        replicas=list(seen.replicas) if seen else [],
        chosen=chosen,
        lines=lines,
        refusal=refusal,
        tail=TAIL,
    )


def _lines(row: Deployment, replica: str) -> tuple[list[loglines.Line], SlipwayError | None]:
    try:
        return [loglines.read(text) for text in services.replica_log(row, replica, tail=TAIL)], None
    except SlipwayError as error:
        return [], error
