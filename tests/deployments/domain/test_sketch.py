"""The 1 % promise, and that merged sketches keep it."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.domain.sketch import (
    EMPTY,
    GAMMA,
    K_MAX,
    RELATIVE_ERROR,
    SLOTS,
    VALUES,
    Sketch,
    UnreadableSketch,
    bucket_of,
    merge,
    merge_bytes,
    quantile_rows,
    slot_of_boundary,
)

latencies = st.floats(min_value=1e-9, max_value=1e6)
lists = st.lists(latencies, min_size=1, max_size=300)
sketches = st.lists(st.one_of(latencies, st.just(0.0)), max_size=60).map(Sketch.from_values)
quantiles = st.floats(min_value=0, max_value=1)

# Rounding of the logarithm may put a value that is a boundary into the next bucket.
PROMISE = RELATIVE_ERROR * (1 + 1e-9)


def exact(values: list[float], q: float) -> float:
    return sorted(values)[math.floor(q * (len(values) - 1))]


@given(values=lists, q=quantiles)
def test_any_quantile_of_one_sketch_is_within_one_percent(values: list[float], q: float) -> None:
    assert Sketch.from_values(values).quantile(q) == pytest.approx(exact(values, q), rel=PROMISE)


@given(replicas=st.lists(lists, min_size=1, max_size=6), q=quantiles)
def test_any_quantile_of_merged_sketches_is_within_one_percent(replicas: list[list[float]], q: float) -> None:
    together = [value for values in replicas for value in values]
    merged = merge(Sketch.from_values(values) for values in replicas)
    assert merged.quantile(q) == pytest.approx(exact(together, q), rel=PROMISE)
    assert merged.count == len(together)
    assert merged.sum == pytest.approx(math.fsum(together))


@pytest.mark.parametrize("replicas", [1, 7])
def test_percentiles_of_a_known_distribution(replicas: int) -> None:
    random = np.random.default_rng(5)
    parts = [
        np.concatenate([random.lognormal(-5, 0.3, 9000 + 500 * n), random.lognormal(-2, 0.6, 1000)])
        for n in range(replicas)
    ]
    merged = merge(Sketch.from_values(part) for part in parts)
    values = np.concatenate(parts)
    for q in (0.5, 0.9, 0.95, 0.99, 0.999):
        true = float(np.quantile(values, q, method="lower"))
        assert merged.quantile(q) == pytest.approx(true, rel=PROMISE)


@given(a=sketches, b=sketches, c=sketches)
def test_merging_is_associative_and_commutative(a: Sketch, b: Sketch, c: Sketch) -> None:
    assert (a + b) + c == a + (b + c) == merge([c, b, a])
    assert a + b == b + a
    assert a + EMPTY == a


@given(parts=st.lists(sketches, max_size=8))
def test_stored_sketches_merge_as_the_sketches_do(parts: list[Sketch]) -> None:
    assert merge_bytes(part.to_bytes() for part in parts) == merge(parts)


@given(parts=st.lists(sketches, max_size=8), qs=st.lists(quantiles, min_size=1, max_size=4))
def test_rows_of_stored_sketches_have_their_quantiles(parts: list[Sketch], qs: list[float]) -> None:
    rows = quantile_rows((part.to_bytes() for part in parts), qs)
    assert rows.shape == (len(parts), len(qs))
    for row, part in zip(rows.tolist(), parts, strict=True):
        assert [None if math.isnan(value) else value for value in row] == part.quantiles(qs)


@given(
    counts=st.dictionaries(st.integers(0, SLOTS - 1), st.integers(1, 2**40), max_size=40),
    total=st.floats(0, 1e9),
    clamped=st.integers(0, 2**32 - 1),
    coarse=st.booleans(),
)
def test_bytes_round_trip(counts: dict[int, int], total: float, clamped: int, coarse: bool) -> None:
    plain = Sketch.from_slots(counts, sum=total, clamped=clamped)
    sketch = Sketch(plain.slots, plain.counts, plain.sum, plain.clamped, coarse)
    assert Sketch.from_bytes(sketch.to_bytes()) == sketch
    assert Sketch.from_bytes(memoryview(sketch.to_bytes())) == sketch


@pytest.mark.parametrize(("highest", "width"), [(65535, 2), (65536, 4), (2**32, 8)])
def test_counts_are_stored_as_wide_as_the_largest_needs(highest: int, width: int) -> None:
    sketch = Sketch.from_slots({5: highest, 9: 1}, sum=0)
    small = Sketch.from_slots({9: 3}, sum=0)
    assert len(sketch.to_bytes()) == 16 + 2 * (2 + width)
    assert merge_bytes([sketch.to_bytes(), small.to_bytes()]) == sketch + small
    assert quantile_rows([small.to_bytes(), sketch.to_bytes()], [0.5]).tolist() == [[VALUES[9]], [VALUES[5]]]


@pytest.mark.parametrize(
    "blob", [b"", b"short", b"\x02" + EMPTY.to_bytes()[1:], EMPTY.to_bytes() + b"x", EMPTY.to_bytes()[:-1]]
)
def test_foreign_bytes_are_refused(blob: bytes) -> None:
    with pytest.raises(UnreadableSketch):
        Sketch.from_bytes(blob)


def test_zero_has_its_own_bucket() -> None:
    sketch = Sketch.from_values([0.0, 0.0, 0.0, 5.0])
    assert sketch.quantile(0.5) == 0.0
    assert sketch.quantile(1) == pytest.approx(5.0, rel=PROMISE)
    assert sketch.clamped == 0


def test_values_outside_the_range_are_clamped_and_said() -> None:
    sketch = Sketch.from_values([-1.0, 1e-12, 1.0, 1e9, math.inf])
    assert (sketch.count, sketch.clamped) == (5, 4)
    assert sketch.quantile(0) == 0.0
    assert sketch.quantile(1) == VALUES[-1]
    assert math.isfinite(sketch.sum)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        Sketch.from_values([1.0, math.nan])


def test_an_empty_sketch_has_no_quantiles() -> None:
    assert EMPTY.quantiles([0.5, 0.99]) == [None, None]
    assert EMPTY.mean is None
    assert merge([]) == merge_bytes([]) == EMPTY


@given(value=latencies)
def test_a_boundary_of_the_rule_maps_back_to_its_bucket(value: float) -> None:
    bucket = min(bucket_of(value), K_MAX)
    (slot,) = Sketch.from_values([value]).slots.tolist()
    # As the replica prints it, and as an exporter that keeps six digits would.
    assert slot_of_boundary(GAMMA**bucket) == slot_of_boundary(float(f"{GAMMA**bucket:.6g}")) == slot


@pytest.mark.parametrize("boundary", [0.005, 0.025, 0.5, 2.5, math.inf, math.nan, -1.0, 1e-12, 1e12])
def test_foreign_boundaries_are_not_ours(boundary: float) -> None:
    assert slot_of_boundary(boundary) is None


def test_coarse_buckets_keep_their_counts_and_say_so() -> None:
    sketch = Sketch.from_coarse([0.1, 0.2, 0.4], [10, 30, 40], count=44, sum=9.0)
    assert (sketch.count, sketch.clamped, sketch.coarse) == (44, 4, True)
    median = sketch.quantile(0.5)
    assert median is not None
    assert 0.1 < median < 0.2
    assert sketch.quantile(1) == pytest.approx(0.4, rel=0.03)
    assert (sketch + Sketch.from_values([1.0])).coarse


@given(
    boundaries=st.lists(st.floats(1e-4, 1e7), min_size=1, max_size=12, unique=True).map(sorted),
    data=st.data(),
)
def test_coarse_buckets_never_gain_or_lose_a_count(boundaries: list[float], data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.integers(0, 1000), min_size=len(boundaries), max_size=len(boundaries)))
    cumulative = np.cumsum(steps).tolist()
    beyond = data.draw(st.integers(0, 10))
    sketch = Sketch.from_coarse(boundaries, cumulative, count=cumulative[-1] + beyond, sum=1.0)
    assert sketch.count == cumulative[-1] + beyond
    assert (sketch.counts > 0).all()


def test_the_rule_can_be_imported_without_django() -> None:
    code = "import json, sys, deployments.domain.sketch; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert not {"django", "aiohttp", "redis"} & set(json.loads(done.stdout))
