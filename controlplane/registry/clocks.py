"""The clocks of a report in words."""

from collections.abc import Mapping, Sequence
from typing import Any


def in_words(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What ran how fast before and after the timing; nothing in reports that did not look."""
    method = data.get("method") or {}
    before, after = method.get("clocks_before"), method.get("clocks_after")
    if not before or not after:
        return []
    cpu = "not available on this machine"
    if before["cpu_mhz"] and after["cpu_mhz"]:
        cpu = f"{_mhz(before['cpu_mhz'])} before, {_mhz(after['cpu_mhz'])} after ({before['cpu_source']})"
    later = {gpu["uuid"]: gpu for gpu in after["gpus"]}
    both = [(gpu, later[gpu["uuid"]]) for gpu in before["gpus"] if gpu["uuid"] in later]
    return [
        ("Processor clock", cpu),
        *((f"Clock of {gpu['name']}", _gpu_clocks(gpu, end)) for gpu, end in both),
    ]


def _gpu_clocks(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    said = [
        f"{what} {_mhz([before[key]])} before, {_mhz([after[key]])} after"
        for what, key in (("graphics", "graphics_mhz"), ("memory", "memory_mhz"))
        if before[key] is not None and after[key] is not None
    ]
    return f"{'; '.join(said) or 'not told'} (driver {before['driver'] or 'not told'})"


def _mhz(values: Sequence[float]) -> str:
    least, most = f"{min(values):,.0f}", f"{max(values):,.0f}"
    return f"{least} MHz" if least == most else f"{least} to {most} MHz"
