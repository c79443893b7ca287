"""The mergeable latency sketch: counts in log buckets, every percentile within 1 %.

A value x falls in bucket k = ceil(log(x) / log(GAMMA)) and is read back as the bucket's harmonic middle,
which is never more than 1 % away (the DDSketch rule: Masson, Rim and Lee, VLDB 2019). Buckets of the same
rule add, so percentiles of an hour, or of ten replicas, come from added counts and never from averaged
percentiles.

Held and stored sparse: a window of 500 values has about 115 buckets in use. Indexes are u16, counts are u16
unless one of them does not fit, then u32 or u64; merging 7,000 stored sketches is one join and one
`bincount`.

Refused: the `ddsketch` package (11 us a merge, an object per sketch) and varints or deflate for storage (half
the bytes, 4 to 11 times the time to merge). This module imports no Django: replicas may use its rule.
"""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

RELATIVE_ERROR: Final = 0.01
GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
LOG_GAMMA: Final = math.log(GAMMA)

# One nanosecond to eleven days, when the unit is the second. What lies outside is clamped and counted as
# such.
K_MIN: Final = math.ceil(math.log(1e-9) / LOG_GAMMA)
K_MAX: Final = math.ceil(math.log(1e6) / LOG_GAMMA)

# Slot 0 holds zeros; slot s > 0 holds bucket k = s + K_MIN - 1.
SLOTS: Final = K_MAX - K_MIN + 2
_EDGES: Final = np.concatenate(([0.0], np.exp(LOG_GAMMA * np.arange(K_MIN, K_MAX + 1))))
VALUES: Final = _EDGES * (2 / (GAMMA + 1))

type Slots = npt.NDArray[np.uint16]
type Counts = npt.NDArray[np.int64]
type Floats = npt.NDArray[np.float64]

_VERSION: Final = 1
_COARSE: Final = 0x80
_HEADER: Final = struct.Struct("<BBHId")  # version, flags | count width, pairs, clamped, sum
_WIDTHS: Final[Mapping[int, np.dtype[np.unsignedinteger[Any]]]] = {
    2: np.dtype("<u2"),
    4: np.dtype("<u4"),
    8: np.dtype("<u8"),
}
_NO_SLOTS: Final[Slots] = np.empty(0, np.uint16)
_NO_COUNTS: Final[Counts] = np.empty(0, np.int64)

# An exporter that prints six digits is 5e-6 off its boundary; neighbouring boundaries are 2e-2 apart.
_BOUNDARY_TOLERANCE: Final = 2e-5


class UnreadableSketch(ValueError):
    """The bytes are not a sketch of a version that this code reads."""


def bucket_of(value: float) -> int:
    """The bucket index k of a positive value, not clamped."""
    return math.ceil(math.log(value) / LOG_GAMMA)


def slot_of_boundary(boundary: float) -> int | None:
    """The slot whose upper edge is this `le`, or None when it is no edge of ours (then the histogram is
    coarse)."""
    if boundary == 0:
        return 0
    if not 0 < boundary < math.inf:
        return None
    k = round(math.log(boundary) / LOG_GAMMA)
    if abs(math.exp(k * LOG_GAMMA) / boundary - 1) > _BOUNDARY_TOLERANCE:
        return None
    return k - K_MIN + 1 if K_MIN <= k <= K_MAX else None


@dataclass(frozen=True, eq=False)
class Sketch:
    """Counts per slot, ascending and without zeros. Immutable; `merge` and `+` give new ones.

    `clamped` of the counted values lay outside the range and are counted at its edge. `coarse` says that some
    counts were spread over foreign, wider buckets: then the promise of 1 % does not hold.
    """

    slots: Slots = field(default_factory=lambda: _NO_SLOTS)
    counts: Counts = field(default_factory=lambda: _NO_COUNTS)
    sum: float = 0.0
    clamped: int = 0
    coarse: bool = False

    @classmethod
    def from_values(cls, values: Iterable[float] | Floats) -> Self:
        """Counts every value. NaN raises ValueError; negatives count as zero and infinity as the top,
        clamped."""
        array = np.atleast_1d(
            np.asarray(values if isinstance(values, np.ndarray) else list(values), np.float64)
        )
        if np.isnan(array).any():
            raise ValueError("a sketch cannot count NaN")
        positive = array[array > 0]
        with np.errstate(over="ignore"):
            buckets = np.ceil(np.log(positive) / LOG_GAMMA)
        slots = (np.clip(buckets, K_MIN, K_MAX) - (K_MIN - 1)).astype(np.intp)
        dense = np.bincount(slots, minlength=SLOTS)
        dense[0] = array.size - positive.size
        clamped = int(((buckets < K_MIN) | (buckets > K_MAX)).sum() + (array < 0).sum())
        finite = np.clip(array, 0, _EDGES[-1])
        return cls.from_dense(dense, sum=float(finite.sum()), clamped=clamped)

    @classmethod
    def from_dense(
        cls, dense: npt.NDArray[np.integer], *, sum: float, clamped: int = 0, coarse: bool = False
    ) -> Self:
        """From one count per slot (`SLOTS` of them)."""
        slots = np.flatnonzero(dense)
        return cls(slots.astype(np.uint16), dense[slots].astype(np.int64), sum, clamped, coarse)

    @classmethod
    def from_slots(cls, counts: Mapping[int, int], *, sum: float, clamped: int = 0) -> Self:
        """From the positive counts of some slots, in any order."""
        slots = sorted(slot for slot, count in counts.items() if count)
        return cls(
            np.array(slots, np.uint16), np.array([counts[slot] for slot in slots], np.int64), sum, clamped
        )

    @classmethod
    def from_coarse(
        cls, boundaries: Sequence[float], cumulative: Sequence[float], *, count: float, sum: float
    ) -> Self:
        """From foreign buckets: finite ascending `le`, cumulative counts, and the count at +Inf.

        Counts are spread evenly between the boundaries, as Prometheus does; what is above the last boundary
        is put on it and counted as clamped. Marked coarse.
        """
        total = round(count)
        if not boundaries or total <= 0:
            bounded, last = 0, 1.0
            dense = np.zeros(SLOTS, np.int64)
        else:
            last = boundaries[-1]
            bounded = min(round(cumulative[-1]), total)
            knots = np.maximum((0.0, *boundaries), 0.0)
            below = np.interp(_EDGES, knots, (0.0, *cumulative), right=bounded)
            dense = np.diff(np.minimum(np.rint(below).astype(np.int64), bounded), prepend=0)
            # The last boundary lies between two edges, or beyond the top one.
            dense[-1] += bounded - int(dense.sum())
        beyond = max(total - bounded, 0)
        dense[int(np.searchsorted(_EDGES, last).clip(0, SLOTS - 1))] += beyond
        return cls.from_dense(dense, sum=sum, clamped=beyond, coarse=True)

    @classmethod
    def from_bytes(cls, blob: bytes | memoryview) -> Self:
        """Reads what `to_bytes` wrote; raises UnreadableSketch."""
        blob = bytes(blob)
        width, pairs, clamped, total, coarse = _read_header(blob)
        edge = _HEADER.size + 2 * pairs
        return cls(
            np.frombuffer(blob, np.dtype("<u2"), pairs, _HEADER.size).astype(np.uint16),
            np.frombuffer(blob, _WIDTHS[width], pairs, edge).astype(np.int64),
            total,
            clamped,
            coarse,
        )

    def to_bytes(self) -> bytes:
        """Header of 16 bytes, then u16 slots, then counts as wide as the largest one needs."""
        highest = int(self.counts.max(initial=0))
        width = 2 if highest < 1 << 16 else 4 if highest < 1 << 32 else 8
        flags = width | (_COARSE if self.coarse else 0)
        head = _HEADER.pack(_VERSION, flags, self.slots.size, min(self.clamped, 0xFFFFFFFF), self.sum)
        return head + self.slots.astype("<u2").tobytes() + self.counts.astype(_WIDTHS[width]).tobytes()

    @property
    def count(self) -> int:
        return int(self.counts.sum())

    @property
    def mean(self) -> float | None:
        return self.sum / self.count if self.count else None

    def quantile(self, q: float) -> float | None:
        """The value of rank floor(q * (count - 1)), within 1 %; None when nothing was counted."""
        return self.quantiles((q,))[0]

    def quantiles(self, qs: Sequence[float]) -> list[float | None]:
        if not self.counts.size:
            return [None] * len(qs)
        ranks = np.floor(np.asarray(qs) * (self.count - 1))
        found = np.searchsorted(np.cumsum(self.counts), ranks, side="right")
        return [float(value) for value in VALUES[self.slots[np.minimum(found, self.slots.size - 1)]]]

    def __add__(self, other: "Sketch") -> "Sketch":
        return merge((self, other))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sketch)
            and np.array_equal(self.slots, other.slots)
            and np.array_equal(self.counts, other.counts)
            and math.isclose(self.sum, other.sum, rel_tol=1e-9, abs_tol=1e-12)
            and (self.clamped, self.coarse) == (other.clamped, other.coarse)
        )

    __hash__ = None  # type: ignore[assignment]  # `sum` is compared with a tolerance


EMPTY: Final = Sketch()


def merge(sketches: Iterable[Sketch]) -> Sketch:
    """The sketch of all their values together. One pass of numpy, whatever the number."""
    held = [sketch for sketch in sketches if sketch.counts.size]
    match held:
        case []:
            return EMPTY
        case [only]:
            return only
    dense = np.zeros(SLOTS, np.int64)
    np.add.at(dense, np.concatenate([s.slots for s in held]), np.concatenate([s.counts for s in held]))
    return Sketch.from_dense(
        dense,
        sum=math.fsum(s.sum for s in held),
        clamped=sum(s.clamped for s in held),
        coarse=any(s.coarse for s in held),
    )


def merge_bytes(blobs: Iterable[bytes]) -> Sketch:
    """As `merge`, straight from storage: 7,000 sketches of 115 buckets in about 10 ms."""
    columns = _Columns.read(blobs)
    if not columns.sizes:
        return EMPTY
    dense = np.zeros(SLOTS, np.int64)
    np.add.at(dense, columns.slots, columns.counts)
    return Sketch.from_dense(
        dense, sum=math.fsum(columns.sums), clamped=sum(columns.clamped), coarse=any(columns.coarse)
    )


def quantile_rows(blobs: Iterable[bytes], qs: Sequence[float]) -> Floats:
    """One row per stored sketch, one column per quantile, NaN for an empty one.

    All rows together in one search of one running sum: a chart of 720 points costs a few milliseconds.
    """
    columns = _Columns.read(blobs)
    sizes = np.array(columns.sizes, np.intp)
    ends = np.cumsum(sizes)
    running = np.concatenate((np.zeros(1, np.int64), np.cumsum(columns.counts)))
    before, through = running[ends - sizes], running[ends]
    totals = through - before
    ranks = before[:, None] + np.floor(np.maximum(totals - 1, 0)[:, None] * np.asarray(qs)[None, :])
    found = np.searchsorted(running[1:], ranks, side="right")
    rows: Floats = np.full((sizes.size, len(qs)), np.nan)
    filled = totals > 0
    if filled.any():
        rows[filled] = VALUES[columns.slots[found[filled]]]
    return rows


def is_coarse(blob: bytes) -> bool:
    """Whether a stored sketch was made of foreign buckets, without reading it."""
    return _read_header(blob)[4]


@dataclass(frozen=True)
class _Columns:
    """The pairs of many stored sketches end to end; `sizes` says how many each of them has."""

    slots: Slots
    counts: Counts
    sizes: list[int]
    sums: list[float]
    clamped: list[int]
    coarse: list[bool]

    @classmethod
    def read(cls, blobs: Iterable[bytes]) -> "_Columns":
        held = [(blob, *_read_header(blob)) for blob in blobs]
        start = _HEADER.size
        slots = b"".join([blob[start : start + 2 * pairs] for blob, _, pairs, *_ in held])
        counts = [blob[start + 2 * pairs :] for blob, _, pairs, *_ in held]
        return cls(
            np.frombuffer(slots, "<u2"),
            _read_counts(counts, [head[1] for head in held]),
            sizes=[head[2] for head in held],
            sums=[head[4] for head in held],
            clamped=[head[3] for head in held],
            coarse=[head[5] for head in held],
        )


def _read_counts(parts: list[bytes], widths: list[int]) -> Counts:
    if all(width == 2 for width in widths):
        return np.frombuffer(b"".join(parts), "<u2").astype(np.int64)
    arrays = (np.frombuffer(part, _WIDTHS[width]) for part, width in zip(parts, widths, strict=True))
    return np.concatenate([array.astype(np.int64) for array in arrays])


def _read_header(blob: bytes) -> tuple[int, int, int, float, bool]:
    """Count width, number of pairs, clamped, sum, coarse."""
    try:
        version, flags, pairs, clamped, total = _HEADER.unpack_from(blob)
    except struct.error as error:
        raise UnreadableSketch("a sketch is at least 16 bytes") from error
    width = flags & ~_COARSE
    if version != _VERSION or width not in _WIDTHS or len(blob) != _HEADER.size + pairs * (2 + width):
        raise UnreadableSketch(
            f"version {version}, width {width}, {pairs} pairs do not fit {len(blob)} bytes"
        )
    return width, pairs, clamped, total, bool(flags & _COARSE)
