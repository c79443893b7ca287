"""The metrics page: valid, complete, and exact within 1 %."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from deployments.domain.sketch import GAMMA
from deployments.stacks.fastapi.errors import Reason
from deployments.stacks.fastapi.load import Load
from deployments.stacks.fastapi.metrics import Metrics

LABELS = {"deployment": 'a"b\\c\nd', "revision": "3", "replica": "r"}
IDLE = Load(waiting=0, in_flight=0, waiting_seconds=0.0, in_flight_seconds=0.0)


def buckets(metrics: Metrics) -> dict[float, int]:
    """Counts by bucket of the latency histogram, as another program would read them."""
    counts: dict[float, int] = {}
    before = 0.0
    for family in text_string_to_metric_families(metrics.page(IDLE, ready=True).decode()):
        for sample in family.samples:
            if sample.name == "slipway_latency_seconds_bucket" and sample.labels["le"] != "+Inf":
                counts[float(sample.labels["le"])] = int(sample.value - before)
                before = sample.value
    return counts


def percentile(counts: dict[float, int], q: float) -> float:
    rank = max(1, int(np.ceil(q * sum(counts.values()))))
    seen = 0
    for bound in sorted(counts):
        seen += counts[bound]
        if seen >= rank:
            return 2 * bound / (GAMMA + 1)
    raise AssertionError("no values")


@given(st.lists(st.floats(2e-6, 500), min_size=1, max_size=300), st.floats(0.01, 1))
def test_any_percentile_of_any_latencies_is_within_one_percent(latencies: list[float], q: float) -> None:
    metrics = Metrics(LABELS)
    for latency in latencies:
        metrics.served(latency)
    exact = sorted(latencies)[max(1, int(np.ceil(q * len(latencies)))) - 1]
    assert percentile(buckets(metrics), q) == pytest.approx(exact, rel=0.01 + 1e-9)


def test_replicas_merge_by_adding_their_buckets() -> None:
    rng = np.random.default_rng(3)
    fast, slow = rng.lognormal(-6, 0.4, 4000), rng.lognormal(-3, 0.6, 1000)
    merged: dict[float, int] = {}
    for latencies in (fast, slow):
        metrics = Metrics(LABELS)
        for latency in latencies.tolist():
            metrics.served(latency)
        for bound, count in buckets(metrics).items():
            merged[bound] = merged.get(bound, 0) + count
    for q in (0.5, 0.95, 0.99):
        exact = np.quantile(np.concatenate([fast, slow]), q, method="inverted_cdf")
        assert percentile(merged, q) == pytest.approx(exact, rel=0.01)


def test_only_bins_that_are_not_empty_are_written() -> None:
    metrics = Metrics(LABELS)
    for latency in (0.001, 0.001, 0.5):
        metrics.served(latency)
    assert sorted(buckets(metrics).values()) == [1, 2]


def test_every_reason_and_label_is_there_from_the_start_and_escaped() -> None:
    families = list(text_string_to_metric_families(Metrics(LABELS).page(IDLE, ready=False).decode()))
    samples = [sample for family in families for sample in family.samples]
    assert all(LABELS.items() <= sample.labels.items() for sample in samples)
    reasons = {sample.labels["reason"] for sample in samples if sample.name == "slipway_errors_total"}
    assert reasons == set(Reason)


def test_batch_sizes_are_counted_by_the_rows_of_each_run() -> None:
    metrics = Metrics(LABELS)
    for rows in (1, 3, 4, 1024):
        metrics.ran(rows)
    text = metrics.page(IDLE, ready=True).decode()
    (family,) = [one for one in text_string_to_metric_families(text) if one.name == "slipway_batch_size"]
    by_bound = {one.labels.get("le"): one.value for one in family.samples if one.name.endswith("_bucket")}
    assert [by_bound[bound] for bound in ("1", "2", "4", "1024", "+Inf")] == [1, 1, 3, 4, 4]
    assert next(one.value for one in family.samples if one.name.endswith("_sum")) == 1032
