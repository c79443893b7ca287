"""What a deployment's page and the API draw: series over a range, and marks of what happened meanwhile."""

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.db.models import F

from controlplane.core.errors import InvalidInput
from deployments.models import Decision, Deployment, Rollout
from deployments.telemetry import store
from deployments.telemetry.chart import chart, grid

RANGES_S = {"5m": 300, "15m": 900, "1h": 3600, "6h": 21_600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000}
ALL = "all"
DEFAULT_RANGE = "15m"
LONGEST_S = 10 * 365 * 86_400
MAX_MARKS = 200
_EPOCH = re.compile(r"[0-9]{1,11}(?:\.[0-9]{1,6})?")


def bounds(deployment: Deployment, parameters: Mapping[str, str], *, now: float) -> tuple[float, float]:
    """Start and end (epoch seconds) of `range=15m|…|all`, or of `from` and `to`. Raises InvalidInput."""
    if parameters.get("from") or parameters.get("to"):
        start, end = _epoch(parameters, "from", now - 900), _epoch(parameters, "to", now)
        end = min(end, now)
        if not end - LONGEST_S <= start < end:
            raise InvalidInput(
                "invalid_range",
                "The range cannot be drawn.",
                "“from” lies before “to”, by at most ten years.",
            )
        return start, end
    name = parameters.get("range", DEFAULT_RANGE)
    if name == ALL:
        first = store.first_ts(deployment.pk)
        return min(first or now, now - RANGES_S["5m"]), now
    if name not in RANGES_S:
        raise InvalidInput(
            "invalid_range", "There is no such range.", f"Use one of: {', '.join(RANGES_S)}, all."
        )
    return now - RANGES_S[name], now


def _epoch(parameters: Mapping[str, str], name: str, default: float) -> float:
    text = parameters.get(name, "")
    if not text:
        return default
    if _EPOCH.fullmatch(text) is None:
        raise InvalidInput(
            "invalid_range", f"“{name}” cannot be read.", "Send seconds since 1970, such as 1795600000."
        )
    return float(text)


def figure(deployment: Deployment, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Arrays of equal length: `t` (epoch seconds), latencies in ms, rates per second, gaps as null; `marks`.

    One index range scan per level and two for the marks; at most 720 points.
    """
    now = time.time()
    start, end = bounds(deployment, parameters, now=now)
    shape = grid(start, end, now=now)
    drawn = chart(store.read(deployment.pk, shape), grid=shape)
    times = [shape.start + place * shape.step_s for place in range(shape.points)]
    return {
        "t": times,
        "step_s": shape.step_s,
        "from": start,
        "to": end,
        "coarse": drawn["coarse"],
        **drawn["series"],
        "marks": marks(deployment, start=start, end=end),
    }


def marks(deployment: Deployment, *, start: float, end: float) -> list[dict[str, Any]]:
    """Rollouts and scaling in the range, oldest first, the newest `MAX_MARKS` of each."""
    since, until = datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC)
    rollouts = Rollout.objects.filter(deployment=deployment, created_at__range=(since, until))
    scalings = Decision.objects.filter(deployment=deployment, at__range=(since, until)).exclude(
        desired_replicas=F("current_replicas")
    )
    found = [
        {
            "t": row.created_at.timestamp(),
            "kind": "rollout",
            "text": f"{row.get_kind_display()} to revision {row.to_revision.number}: {row.get_state_display().lower()}",
        }
        for row in rollouts.select_related("to_revision")[:MAX_MARKS]
    ]
    found += [
        {
            "t": row.at.timestamp(),
            "kind": "scaling",
            "text": f"{row.current_replicas} to {row.desired_replicas} replicas",
        }
        for row in scalings[:MAX_MARKS]
    ]
    return sorted(found, key=lambda mark: mark["t"])
