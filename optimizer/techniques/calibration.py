"""The items that a technique looks at while it makes its result, handed to ONNX Runtime's calibrators.

What was looked at is not compared afterwards, so of an evaluation set only a share is taken: a verdict needs hundreds
of items.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from optimizer.techniques.port import CALIBRATION_MISSING, Work
from optimizer.workbench.items import StoredItems, digest, read_npz
from optimizer.workbench.journal import Journal
from optimizer.workbench.signature import Feed

BORROWED_SHARE = 4


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """`chosen`: indices of `items`, drawn without repeats and in order."""

    items: StoredItems
    chosen: list[int]
    source: str
    sha256: str

    @classmethod
    def draw(cls, work: Work, *, wanted: int, stride: int = 1) -> Self:
        """`wanted` items with the job's seed, or as many as there may be: a whole number of strides, or fewer than
        one. Raises Unprocessable("calibration_missing"), or what the set is refused for."""
        if work.calibration is None:
            raise CALIBRATION_MISSING.error()
        items = read_npz(work.calibration, work.signature)
        borrowed = work.calibration_source == "evaluation_set"
        count = min(wanted, max(1, len(items) // BORROWED_SHARE) if borrowed else len(items))
        if count > stride:
            count -= count % stride
        order = np.random.default_rng(work.seed).permutation(len(items))
        return cls(
            items=items,
            chosen=sorted(int(index) for index in order[:count]),
            source=work.calibration_source,
            sha256=digest(work.calibration),
        )

    @property
    def evaluation_items(self) -> list[int]:
        """Those of the evaluation set, which must not be compared."""
        return self.chosen if self.source == "evaluation_set" else []

    def to_json(self) -> dict[str, Any]:
        return {"source": self.source, "sha256": self.sha256, "items": len(self.chosen)}

    def reader(self, journal: Journal) -> "Reader":
        return Reader(self.items, self.chosen, journal)


class Reader:
    """Has the methods of ONNX Runtime's CalibrationDataReader; one item at a time."""

    def __init__(self, items: StoredItems, chosen: list[int], journal: Journal) -> None:
        self._items, self._chosen, self._journal = items, chosen, journal
        self._range = iter(chosen)
        self._done = 0

    def __len__(self) -> int:
        return len(self._chosen)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._range = iter(self._chosen[start_index:end_index])

    def get_next(self) -> Feed | None:
        index = next(self._range, None)
        if index is None:
            return None
        self._done += 1
        self._journal.progress(self._done, len(self._chosen))
        return self._items.feed([index])

    def __iter__(self) -> Iterator[Feed]:
        return iter(self.get_next, None)
