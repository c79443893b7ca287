"""What a cluster says of itself, in words: why it has so many replicas, and how long each took to come up. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_STEPS = (
    ("scheduled", "to be scheduled"),
    ("pulled", "to pull the image"),
    ("started", "to start"),
    ("ready", "to become ready"),
)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """`word` is a label and a tone."""

    word: tuple[str, str]
    sentence: str
    since: datetime | None


def autoscaler(document: Mapping[str, Any]) -> str:
    """One sentence; empty where the cluster has no autoscaler of the deployment."""
    if not document:
        return ""
    desired, current = document.get("desired"), document.get("current")
    bounds = f"{document.get('min')} to {document.get('max')} allowed"
    if desired is None:
        return f"The cluster's autoscaler has not decided yet ({bounds})."
    has = "" if current in (None, desired) else f", and has {current} now"
    return f"The cluster's autoscaler wants {desired} replica{'' if desired == 1 else 's'} ({bounds}){has}."


def conditions(document: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Those that a person should read; an unlimited autoscaler is no news."""
    found = (_condition(one) for one in document.get("conditions") or ())
    return tuple(one for one in found if one is not None)


def _condition(one: Mapping[str, str]) -> Condition | None:
    true = one.get("status") == "True"
    match one.get("type"):
        case "AbleToScale":
            word = ("Able to scale", "ok") if true else ("Cannot scale", "failed")
        case "ScalingActive":
            word = ("Reads its signals", "ok") if true else ("Does not read its signals", "warning")
        case "ScalingLimited" if true:
            word = ("Held at a bound", "paused")
        case "ScalingLimited":
            return None
        case other:
            word = (f"{other}: {one.get('status')}", "unknown")
    at = one.get("lastTransitionTime")
    sentence = one.get("message", "").rstrip(".")
    return Condition(
        word=word,
        sentence=f"{sentence[:1].upper()}{sentence[1:]}." if sentence else "",
        since=datetime.fromisoformat(at) if at else None,
    )


def phases(moments: Mapping[str, datetime]) -> str:
    """“2 s to be scheduled, 14 s to pull the image, 31 s to become ready”; empty where nothing is known."""
    before = moments.get("created")
    said = []
    for name, words in _STEPS:
        moment = moments.get(name)
        if before is None or moment is None:
            continue
        said.append(f"{max(0.0, (moment - before).total_seconds()):.0f} s {words}")
        before = max(before, moment)
    return ", ".join(said)
