"""What the API says, as bytes: discovery, lists of values, and a Status where there is no answer.

Documents that never change are made once. A list is never empty: to an autoscaler that is an error without a
reason, and a Status says one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

import orjson

from deployments.domain.hpa.quantity import Quantity
from deployments.telemetry.signals import SignalName

GROUP: Final = "external.metrics.k8s.io"
VERSION: Final = "v1beta1"
GROUP_VERSION: Final = f"{GROUP}/{VERSION}"
_LIST: Final = "ExternalMetricValueList"
_REASONS: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    500: "InternalError",
    503: "ServiceUnavailable",
}
_DECIMALS: Final = {SignalName.P99_LATENCY: 6}
"""Autoscalers compare thousandths and round up: noise in a sixteenth digit would be one replica more."""


class Refusal(Exception):
    """There is no answer, and a sentence says why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @classmethod
    def unavailable(cls, message: str) -> Self:
        """For now: an autoscaler keeps its size and asks again. Without Retry-After, for which its client would
        wait, and all autoscalers behind it."""
        return cls(503, message)

    def to_json(self) -> bytes:
        return orjson.dumps(
            {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": self.message,
                "reason": _REASONS.get(self.code, "Unknown"),
                "code": self.code,
            }
        )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measured value, with the labels that it has and its time in epoch seconds."""

    name: SignalName
    labels: Mapping[str, str]
    value: float
    at: float

    @property
    def quantity(self) -> str:
        return quantity(self.name, self.value)

    @property
    def timestamp(self) -> str:
        """RFC 3339, in UTC."""
        moment = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        return moment.removesuffix("+00:00") + "Z"


def quantity(name: SignalName, value: float) -> str:
    """A Kubernetes quantity, such as 37500m; latency to the microsecond, everything else to the thousandth."""
    return str(Quantity.parse(round(value, _DECIMALS.get(name, 3))))


def value_list(samples: Sequence[Sample]) -> bytes:
    return orjson.dumps(
        {
            "kind": _LIST,
            "apiVersion": GROUP_VERSION,
            "metadata": {},
            "items": [
                {
                    "metricName": one.name.value,
                    "metricLabels": dict(one.labels),
                    "timestamp": one.timestamp,
                    "value": one.quantity,
                }
                for one in samples
            ],
        }
    )


def plain_value(sample: Sample, *, age_s: float) -> bytes:
    """What KEDA's `metrics-api` scaler reads, with `valueLocation: value`."""
    return orjson.dumps(
        {
            "metric": sample.name.value,
            "value": round(sample.value, _DECIMALS.get(sample.name, 3)),
            "timestamp": sample.timestamp,
            "age_s": round(age_s, 3),
        }
    )


_VERSIONED: Final = {"groupVersion": GROUP_VERSION, "version": VERSION}
_GROUP_DOCUMENT: Final[dict[str, Any]] = {
    "name": GROUP,
    "versions": [_VERSIONED],
    "preferredVersion": _VERSIONED,
}
API_GROUP_LIST: Final = orjson.dumps(
    {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_GROUP_DOCUMENT]}
)
API_GROUP: Final = orjson.dumps({"kind": "APIGroup", "apiVersion": "v1"} | _GROUP_DOCUMENT)
API_RESOURCE_LIST: Final = orjson.dumps(
    {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": GROUP_VERSION,
        "resources": [
            {"name": name.value, "singularName": "", "namespaced": True, "kind": _LIST, "verbs": ["get"]}
            for name in SignalName
        ],
    }
)
