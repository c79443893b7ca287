"""Kubernetes quantities ("10", "2500m", "1k", "1Ki"), kept as whole billionths.

Exists because the autoscaler compares whole thousandths, rounded up, and one rounding done differently is
one replica more or less. Refused: floats as the stored form (they cannot hold 0.1), and NaN or infinity,
which the format itself cannot write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_UP, Context, Decimal

from deployments.domain.hpa.errors import InvalidHpa

_EXACT = Context(prec=120)
_LARGEST = 2**63 - 1
_NANO = 10**9
_LONGEST_TEXT = 48
_SUFFIXES = {
    **{"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1)},
    **{suffix: Decimal(1000**power) for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Decimal(1024**power) for power, suffix in enumerate("KMGTPE", start=1)},
}
# An exponent is read before the exa suffix: "1E3" is a thousand, "1E" is 10**18.
_PATTERN = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:[eE](?P<exponent>[+-]?[0-9]{1,2})|(?P<suffix>[KMGTPE]i|[numkMGTPE]?))"
)


@dataclass(frozen=True, order=True)
class Quantity:
    """An exact amount, in billionths. Finer digits were rounded away from zero, as Kubernetes does."""

    nano: int

    @classmethod
    def parse(cls, value: object, *, field: str = "quantity") -> Quantity:
        """Reads a quantity's text or a number. Raises InvalidHpa, naming `field`, on anything else."""
        amount = _amount(value, field=field)
        if abs(amount) > _LARGEST:
            raise InvalidHpa(field, f"{value!r} is larger than a quantity can hold (2^63 - 1).")
        scaled = _EXACT.multiply(amount, Decimal(_NANO))
        return cls(int(scaled.to_integral_value(rounding=ROUND_UP)))

    @property
    def milli(self) -> int:
        """Whole thousandths, rounded away from zero: the unit in which the autoscaler compares."""
        thousandths = -(-abs(self.nano) // 10**6)
        return thousandths if self.nano >= 0 else -thousandths

    def __float__(self) -> float:
        """As Kubernetes does (AsApproximateFloat64): the digits as written times a power of ten, which is not
        always the nearest float: 570m is 0.5700000000000001."""
        if self.nano % _NANO == 0:
            return float(self.nano // _NANO)
        return self.nano // 10**6 * 1e-3 if self.nano % 10**6 == 0 else self.nano * 1e-9

    def __str__(self) -> str:
        if self.nano % _NANO == 0:
            return str(self.nano // _NANO)
        return f"{self.nano // 10**6}m" if self.nano % 10**6 == 0 else f"{self.nano}n"

    def words(self) -> str:
        """The amount for people: 1,000 or 2.5."""
        whole, rest = divmod(abs(self.nano), _NANO)
        sign = "-" if self.nano < 0 else ""
        digits = f"{rest:09d}".rstrip("0")
        return f"{sign}{whole:,}.{digits}" if digits else f"{sign}{whole:,}"


def _amount(value: object, *, field: str) -> Decimal:
    match value:
        case bool():
            raise InvalidHpa(field, f"{value!r} is not a quantity.")
        case int():
            return Decimal(value)
        case float() | Decimal():
            number = Decimal(repr(value)) if isinstance(value, float) else value
            if not number.is_finite():
                raise InvalidHpa(field, f"{value!r} is not a number.")
            return number
        case str():
            return _amount_of_text(value, field=field)
        case _:
            raise InvalidHpa(field, f"{value!r} is not a quantity; write a number or text such as '2500m'.")


def _amount_of_text(text: str, *, field: str) -> Decimal:
    found = _PATTERN.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    if found is None:
        shown = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
        raise InvalidHpa(field, f"{shown!r} is not a quantity; write it like '10', '2500m', '1k' or '1Ki'.")
    if found["exponent"] is not None:
        return Decimal(found["number"]).scaleb(int(found["exponent"]), context=_EXACT)
    return _EXACT.multiply(Decimal(found["number"]), _SUFFIXES[found["suffix"]])
