"""Numbers, sizes and times as people read them: three significant digits, the unit apart.

Pure, so that a page, a CSV header and a command say the same. Every function that makes a number returns
`Quantity`: the page makes the unit smaller, a log line joins the two. Refused: locale-dependent formats; one
product, one spelling, so that what a colleague reads out can be searched for.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

NOTHING = "–"
SMALLEST = 0.001
_MULTIPLES = ((1e12, "T"), (1e9, "G"), (1e6, "M"))
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """`text` is the number alone, with a true minus sign."""

    text: str
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.unit}".rstrip()


def significant(value: float, *, digits: int = 3) -> str:
    """`value` with that many significant digits: 0.00123, 1.50, 12.3, 1,230. Whole numbers below 1,000 stay whole.

    What is not finite is NOTHING. From a million on the multiple is named: 1.23M; below a thousandth is `<0.001`.
    """
    if not math.isfinite(value):
        return NOTHING
    for size, suffix in _MULTIPLES:
        if abs(value) >= size:
            return significant(value / size, digits=digits) + suffix
    if 0 < abs(value) < SMALLEST:
        return f"<{SMALLEST}" if value > 0 else f">−{SMALLEST}"
    if isinstance(value, int) and abs(value) < 10**digits:
        text = f"{value:d}"
    elif value == 0:
        text = "0"
    else:
        # Rounded twice: 999.6 gets a fourth digit in the first round and must not keep a decimal.
        rounded = _round(value, digits)
        places = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
        text = f"{rounded:,.{places}f}"
        if abs(rounded) >= _MULTIPLES[-1][0]:
            return significant(rounded, digits=digits)
    return text.replace("-", "−", 1) if value < 0 else text


def _round(value: float, digits: int) -> float:
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def quantity(value: float | None, unit: str = "") -> Quantity:
    """A percent sign belongs to the number; every other unit stands apart. None is NOTHING without a unit."""
    text = NOTHING if value is None else significant(value)
    return Quantity(text=text, unit="" if text == NOTHING else unit)


def size(size_bytes: float | None) -> Quantity:
    """Powers of 1024 under their own names."""
    if size_bytes is None or not math.isfinite(size_bytes):
        return Quantity(text=NOTHING)
    step = 0
    value: float = size_bytes
    while abs(value) >= 999.5 and step < len(_BINARY) - 1:
        value, step = value / 1024, step + 1
    return Quantity(text=significant(value), unit=_BINARY[step])


def duration(duration_s: float | None, *, whole: bool = False) -> Quantity:
    """12.3 µs, 4.56 ms, 7.89 s; from a minute on in two steps: `3 min 5 s`, `2 h 4 min`, `3 d 4 h`.

    `whole` is for what is still counting or only estimated: no more than whole seconds.
    """
    if duration_s is None or not math.isfinite(duration_s):
        return Quantity(text=NOTHING)
    length = abs(round(duration_s) if whole else duration_s)
    if whole and length < 60:
        return Quantity(text=str(round(duration_s)).replace("-", "−"), unit="s")
    if length == 0:
        return Quantity(text="0", unit="s")
    for limit, factor, unit in ((0.9995e-3, 1e6, "µs"), (0.9995, 1e3, "ms"), (59.95, 1.0, "s")):
        if length < limit:
            return Quantity(text=significant(float(duration_s * factor)), unit=unit)
    sign = "−" if duration_s < 0 else ""
    minutes, seconds = divmod(round(length), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    steps = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next(index for index, (count, _) in enumerate(steps) if count)
    shown = [f"{count} {unit}" for count, unit in steps[first : first + 2] if count]
    return Quantity(text=sign + " ".join(shown))


def signed_points(ratio: float, *, of: float) -> str:
    """The same change of a share that was `of` percent, in points: 1.01 of 90 is +0.9 points."""
    if not math.isfinite(ratio):
        return NOTHING
    change = (ratio - 1) * of
    if abs(change) < 0.005:
        return "±0 points"
    return f"{'+' if change > 0 else '−'}{significant(abs(change), digits=2)} points"


def signed_percent(ratio: float) -> str:
    """A ratio to what it is compared with, as a signed change: 0.51 is −49 %, 1.02 is +2 %."""
    if not math.isfinite(ratio):
        return NOTHING
    change = (ratio - 1) * 100
    if abs(change) < 0.05:
        return "±0 %"
    rounded = _round(change, 2 if abs(change) < 100 else 3)
    text = significant(abs(rounded), digits=2 if abs(rounded) < 100 else 3)
    return f"{'+' if change > 0 else '−'}{text} %"


def absolute(moment: datetime) -> str:
    """The moment in UTC, zone said. Pages show it until the reader's zone is known."""
    return moment.astimezone(UTC).strftime("%-d %b %Y, %H:%M:%S UTC")


def relative(moment: datetime, *, now: datetime) -> str:
    """`just now`, `12 s ago`, `in 5 min`, `3 d ago`: one step, rounded down, so it never says more than happened."""
    seconds = (now - moment).total_seconds()
    length = abs(seconds)
    if length < 5:
        return "just now"
    for step, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if length >= step:
            text = f"{int(length // step)} {unit}"
            return f"{text} ago" if seconds > 0 else f"in {text}"
    return "just now"


def machine(moment: datetime) -> str:
    """ISO 8601 in UTC, for the time element, exports and logs."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
