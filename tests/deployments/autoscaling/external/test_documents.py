"""What is sent to an autoscaler is what was measured, in the forms that Kubernetes reads."""

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.autoscaling.external import documents
from deployments.autoscaling.external.documents import Sample, quantity, value_list
from deployments.domain.hpa.quantity import Quantity
from deployments.telemetry.sheet import SignalLabels, pack, unpack
from deployments.telemetry.signals import DeploymentSignals, SignalName
from tests.deployments.autoscaling.external.signals import serving

AMOUNTS = st.floats(min_value=0, max_value=1e9)
NAMES = st.sampled_from(SignalName)


@given(name=NAMES, value=AMOUNTS)
def test_a_quantity_is_the_value_to_its_last_digit(name: SignalName, value: float) -> None:
    read = Quantity.parse(quantity(name, value))
    digits = 6 if name is SignalName.P99_LATENCY else 3
    assert read.nano == round(round(value, digits) * 10**digits) * 10 ** (9 - digits)


@given(whole=st.integers(min_value=0, max_value=10**6), noise=st.floats(min_value=-1e-9, max_value=1e-9))
def test_noise_in_the_last_digits_of_a_sum_asks_for_no_replica_more(whole: int, noise: float) -> None:
    """An autoscaler rounds thousandths up."""
    read = Quantity.parse(quantity(SignalName.QUEUE_DEPTH, max(0.0, whole + noise)))
    assert read.milli == whole * 1000


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        (SignalName.QUEUE_DEPTH, 0.0, "0"),
        (SignalName.QUEUE_DEPTH, -0.0, "0"),
        (SignalName.QUEUE_DEPTH, 37.5, "37500m"),
        (SignalName.QUEUE_DEPTH, 500.0, "500"),
        (SignalName.P99_LATENCY, 0.25, "250m"),
        (SignalName.P99_LATENCY, 0.0004, "400000n"),
    ],
)
def test_quantities_as_kubernetes_writes_them(name: SignalName, value: float, text: str) -> None:
    assert quantity(name, value) == text


@given(at=st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)))
def test_a_timestamp_is_the_moment_of_the_sample(at: datetime) -> None:
    moment = at.replace(tzinfo=UTC)
    sample = Sample(name=SignalName.QUEUE_DEPTH, labels={}, value=1.0, at=moment.timestamp())
    assert sample.timestamp.endswith("Z")
    assert abs(datetime.fromisoformat(sample.timestamp) - moment) < timedelta(milliseconds=1)


def test_a_list_says_of_which_series_each_value_is() -> None:
    samples = [
        Sample(name=SignalName.IN_FLIGHT, labels={"deployment": name}, value=value, at=1764000000.25)
        for name, value in (("bert", 0.0), ("resnet", 1.5))
    ]
    assert orjson.loads(value_list(samples)) == {
        "kind": "ExternalMetricValueList",
        "apiVersion": "external.metrics.k8s.io/v1beta1",
        "metadata": {},
        "items": [
            {
                "metricName": "inference_in_flight",
                "metricLabels": {"deployment": name},
                "timestamp": "2025-11-24T16:00:00.250Z",
                "value": value,
            }
            for name, value in (("bert", "0"), ("resnet", "1500m"))
        ],
    }


def test_discovery_has_every_signal() -> None:
    resources = orjson.loads(documents.API_RESOURCE_LIST)["resources"]
    assert {one["name"] for one in resources} == set(SignalName)
    assert all(one["namespaced"] and one["verbs"] == ["get"] for one in resources)


@given(
    names=st.dictionaries(
        st.integers(min_value=1, max_value=99), st.text(max_size=10).filter(str.isprintable), max_size=5
    ),
    value=AMOUNTS,
)
def test_a_sheet_is_read_as_it_was_written(names: dict[int, str], value: float) -> None:
    labels = {
        f"d{number}": SignalLabels(namespace=f"{name}\t\n", labels={"deployment": name, "key": f"d{number}"})
        for number, name in names.items()
    }
    signals = [serving(number, depth=value) for number in (*names, 100)]
    read = unpack(pack({one.deployment: one.to_json() for one in signals}, labels))
    assert [SignalLabels.from_json(one) for one in read] == list(labels.values())
    assert [DeploymentSignals.from_json(one) for one in read.values()] == signals[:-1], "d100 has no labels"
