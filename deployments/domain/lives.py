"""The phases of a replica's start, with how long each took. Pure."""

from collections.abc import Mapping
from datetime import datetime

from deployments.domain.workload import ReplicaStatus

ORDER = ("created", "scheduled", "pulled", "fetched", "started", "ready")


def phases(one: ReplicaStatus) -> dict[str, datetime]:
    """Those that are known; of a process on this machine its start and when it became ready."""
    if one.phases:
        return dict(one.phases)
    return {"started": one.started_at} | ({"ready": one.ready_at} if one.ready_at else {})


def began(one: ReplicaStatus) -> datetime:
    return one.phases.get("created") or one.started_at


def durations(began_at: datetime, found: Mapping[str, datetime]) -> dict[str, float]:
    """Seconds from the phase before, in the order of a start; what is not known is left out. A cluster's moments are
    whole seconds of several clocks: never below zero."""
    lasted, before = {}, began_at
    for name in ORDER:
        at = found.get(name)
        if at is None or name == "created":
            continue
        lasted[name] = max(0.0, (at - before).total_seconds())
        before = max(before, at)
    return lasted


def words(lasted: Mapping[str, float]) -> str:
    """“scheduled 0.4 s, pulled 12 s, ready 31 s”."""
    return ", ".join(
        f"{name} {seconds:.1f} s" if seconds < 10 else f"{name} {seconds:.0f} s"
        for name, seconds in lasted.items()
    )
