"""What a million requests cost on the machine that measured, at a price per hour.

Refused: prices that we know. They differ by contract and change by the month; the reader has theirs.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from controlplane.core.errors import InvalidInput

MOST = 1_000_000.0
_PRICE = re.compile(r"\d{1,7}(?:\.\d{1,6})?")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a million items, in the currency of the price. `items_per_s` is what one busy replica answers, in requests of
    `batch_size` items."""

    per_million: float
    batch_size: int
    items_per_s: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """`parent` is of the batch sizes that were compared, `variant` of its whole service curve."""

    price_per_hour: float
    parent: Cost | None
    variant: Cost | None

    def to_json(self) -> dict[str, Any]:
        sides = {"parent": self.parent, "variant": self.variant}
        return {"price_per_hour": self.price_per_hour} | {
            side: cost.to_json() if cost else None for side, cost in sides.items()
        }


def price(text: str) -> float | None:
    """As an address carries it, such as `0.45`; None for "". Raises InvalidInput."""
    if not text:
        return None
    value = float(text) if text.isascii() and _PRICE.fullmatch(text) else math.nan
    if not 0 < value <= MOST:
        raise InvalidInput(
            "invalid_price_per_hour",
            "“price_per_hour” is no price.",
            f"Use a number above 0 and up to {MOST:,.0f}, such as 0.45.",
            fields={"price_per_hour": [f"A number above 0 and up to {MOST:,.0f}."]},
        )
    return value


def costs(data: Mapping[str, Any], price_per_hour: float) -> Costs:
    """Of both sides of a report; None where a side was not timed."""
    timings = data.get("timings") or ()
    timed = [(timing["batch_size"], timing["variant"]["median_ms"]) for timing in timings]
    served = [(point["batch_size"], point["median_ms"]) for point in data.get("service_curve") or ()]
    parent = [(timing["batch_size"], timing["parent"]["median_ms"]) for timing in timings]
    return Costs(
        price_per_hour=price_per_hour,
        parent=cheapest(parent, price_per_hour),
        variant=cheapest(served or timed, price_per_hour),
    )


def cheapest(points: Iterable[tuple[int, float]], price_per_hour: float) -> Cost | None:
    """The best of the (batch size, milliseconds of one request) points:

        items per second = 1000 * batch size / milliseconds
        cost per million = price per hour / (3600 * items per second) * 1,000,000

    for one replica that is always busy with full batches on a machine of its own: the least it can cost. Idle time,
    headroom and part-filled batches make it more; the planner says how much.
    """
    rates = [(1000 * size / took_ms, size) for size, took_ms in points if took_ms > 0]
    if not rates:
        return None
    items_per_s, size = max(rates)
    return Cost(
        per_million=price_per_hour / (3600 * items_per_s) * 1e6, batch_size=size, items_per_s=items_per_s
    )
