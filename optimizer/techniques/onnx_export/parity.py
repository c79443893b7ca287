"""Whether the exported file computes what its source does, at several batch sizes and sizes of free dimensions.

An export can be right at the shape that it was traced with and wrong at the next one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from controlplane.core.errors import Unprocessable
from optimizer.evaluation.ranges import Range, integer_ranges
from optimizer.evaluation.synthetic import RandomItems
from optimizer.techniques.port import Work
from optimizer.workbench.formats import Session
from optimizer.workbench.session import first_line, open_session, pass_on
from optimizer.workbench.signature import Array, Feed

SHAPES = ((1, 16), (3, 7), (8, 128), (2, 224), (2, 1))
"""Batch size, size of every other free dimension."""
ENOUGH = 3
MOST = {"f2": 0.02, "f4": 1e-3, "f8": 1e-3}
"""Distance of all answers over their size, by type; whole numbers may differ as rounding lets them."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """`largest` difference of any number, `distance` of all relative to their size."""

    batch: int
    size: int
    largest: float
    distance: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(source: Session, work: Work) -> list[Compared]:
    """Raises Unprocessable: `shape_lost` where only the source runs at a shape, `parity` where answers differ, and
    `parity_unknown` where the source runs at none."""
    ranges = integer_ranges(work.output)
    made, names = open_session(work.output), [spec.name for spec in work.signature.outputs]
    found: list[Compared] = []
    refusal = ""
    for batch, size in _shapes(work):
        feed = _feed(work, ranges, batch=batch, size=size)
        try:
            expected = source.run(names, feed)
        except Exception as error:  # noqa: BLE001  a shape that the model itself does not take says nothing
            pass_on(error)
            refusal = first_line(error)
            continue
        found.append(_compared(expected, _answers(made, names, feed, batch, size), batch=batch, size=size))
        if len(found) == ENOUGH:
            break
    if not found:
        raise Unprocessable(
            "parity_unknown", "The export could not be compared.", f"The model itself refused: {refusal}"
        )
    return found


def _shapes(work: Work) -> Sequence[tuple[int, int]]:
    free = any(isinstance(size, str) for spec in work.signature.inputs for size in spec.shape)
    shapes = SHAPES if free else SHAPES[:1]
    return shapes if work.signature.batched else list(dict.fromkeys((1, size) for _, size in shapes))


def _feed(work: Work, ranges: Mapping[str, Range], *, batch: int, size: int) -> Feed:
    free = {each for spec in work.signature.inputs for each in spec.shape if isinstance(each, str)}
    items = RandomItems(
        signature=work.signature,
        sizes=dict.fromkeys(free, size),
        ranges=ranges,
        seed=work.seed,
        count=batch,
    )
    return items.feed(range(batch))


def _answers(made: Session, names: list[str], feed: Feed, batch: int, size: int) -> Sequence[Array]:
    try:
        return made.run(names, feed)
    except Exception as error:
        pass_on(error)
        raise Unprocessable(
            "shape_lost",
            "The exported file does not run at every shape that its source runs at.",
            f"With a batch of {batch} and free dimensions of {size}: {first_line(error)}",
        ) from error


def _compared(expected: Sequence[Array], given: Sequence[Array], *, batch: int, size: int) -> Compared:
    largest = distance = 0.0
    for theirs, ours in zip(expected, given, strict=True):
        if theirs.shape != ours.shape:
            raise _differs(f"the shape {list(ours.shape)} instead of {list(theirs.shape)}", batch, size)
        a, b = theirs.astype(np.float64), ours.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        gap = np.where(same, 0.0, np.abs(a - b))
        scale = float(np.linalg.norm(np.nan_to_num(a, nan=0.0, posinf=0.0, neginf=0.0))) or 1.0
        relative = float(np.linalg.norm(gap)) / scale
        most = MOST.get(theirs.dtype.str[1:], 0.01)
        if not relative <= most:
            raise _differs(f"answers {relative:.2g} away from the source's; {most:g} is allowed", batch, size)
        largest, distance = max(largest, float(gap.max(initial=0.0))), max(distance, relative)
    return Compared(batch=batch, size=size, largest=largest, distance=distance)


def _differs(how: str, batch: int, size: int) -> Unprocessable:
    return Unprocessable(
        "parity",
        "The exported file computes something else than its source.",
        f"With a batch of {batch} and free dimensions of {size} it gives {how}.",
    )
