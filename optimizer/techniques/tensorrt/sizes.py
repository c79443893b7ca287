"""Which sizes of its open axes an engine is built for: what was asked, and defaults for the rest.

An engine answers only sizes between the least and the most, and is tuned for one between them. Axes are called as
in the model's signature; two that have one name there have one range here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from controlplane.core.errors import Unprocessable

FORM = r"^[^=]{1,100}=[0-9]{1,9}/[0-9]{1,9}/[0-9]{1,9}$"
_FORM = re.compile(FORM)
_SPATIAL_RANK = 4


@dataclass(frozen=True, kw_only=True)
class Range:
    least: int
    tuned: int
    most: int

    @classmethod
    def read(cls, text: str) -> tuple[str, Self]:
        """The axis and its range from `batch=1/8/32`. Raises ValueError with a sentence."""
        if not _FORM.match(text):
            raise ValueError(f"“{text[:120]}” is not of the form batch=1/8/32")
        axis, _, sizes = text.rpartition("=")
        least, tuned, most = map(int, sizes.split("/"))
        if not 1 <= least <= tuned <= most:
            raise ValueError(f"{axis}: the sizes must rise from at least 1, and {sizes} does not")
        return axis.strip(), cls(least=least, tuned=tuned, most=most)

    def __str__(self) -> str:
        return f"{self.least}/{self.tuned}/{self.most}"


BATCH = Range(least=1, tuned=8, most=32)
PIXELS = Range(least=32, tuned=224, most=640)
LENGTH = Range(least=1, tuned=64, most=512)


def open_axes(inputs: Iterable[Sequence[int | str]], *, batched: bool) -> dict[str, Range]:
    """The axes that the inputs' shapes leave open, with the range that each has unless another is asked for."""
    found: dict[str, Range] = {}
    for shape in inputs:
        for index, size in enumerate(shape):
            if isinstance(size, str):
                found.setdefault(size, _default(index, rank=len(shape), batched=batched))
    return found


def _default(index: int, *, rank: int, batched: bool) -> Range:
    if index == 0 and batched:
        return BATCH
    return PIXELS if rank == _SPATIAL_RANK and index > 1 else LENGTH


def ranges(inputs: Iterable[Sequence[int | str]], *, batched: bool, asked: Iterable[str]) -> dict[str, Range]:
    """Every open axis and its range. Raises Unprocessable("unknown_axes") for what the inputs do not have."""
    given, axes = dict(map(Range.read, asked)), open_axes(inputs, batched=batched)
    if unknown := sorted(given.keys() - axes.keys()):
        there = ", ".join(f"“{name}”" for name in axes) or "none"
        raise Unprocessable(
            "unknown_axes",
            "Sizes were given for axes that the model does not leave open.",
            f"Not among its open axes: {', '.join(f'“{name}”' for name in unknown)}. There are: {there}.",
        )
    return axes | given


def profile(
    shape: Sequence[int | str], ranges: Mapping[str, Range]
) -> tuple[list[int], list[int], list[int]]:
    """Least, tuned and most shape of one input."""
    sizes = [
        ranges[size] if isinstance(size, str) else Range(least=size, tuned=size, most=size) for size in shape
    ]
    return [size.least for size in sizes], [size.tuned for size in sizes], [size.most for size in sizes]
