"""Signals as the collector writes them, for tests of who reads them."""

from deployments.telemetry.sheet import SignalLabels
from deployments.telemetry.signals import DeploymentSignals, Signal, SignalError, SignalName

PERIOD_S = 2.0
NO_REPLICAS = Signal(value=None, age_s=None, error=SignalError.NO_REPLICAS)


def measured(value: float | None, *, age_s: float | None = 0.5, error: SignalError | None = None) -> Signal:
    return Signal(value=value, age_s=age_s, error=error, reporting=1, expected=1)


def serving(
    number: int, *, depth: float = 0.0, in_flight: float = 0.0, rate: float = 0.0
) -> DeploymentSignals:
    """Of deployment d<number>. Without a request, its latency is none."""
    latency = measured(0.25) if rate else measured(None, error=SignalError.NO_REQUESTS)
    return of(
        number,
        {
            SignalName.QUEUE_DEPTH: measured(depth),
            SignalName.IN_FLIGHT: measured(in_flight),
            SignalName.REQUEST_RATE: measured(rate),
            SignalName.P99_LATENCY: latency,
        },
    )


def of(number: int, signals: Signal | dict[SignalName, Signal]) -> DeploymentSignals:
    each = signals if isinstance(signals, dict) else dict.fromkeys(SignalName, signals)
    return DeploymentSignals(deployment=f"d{number}", at_wall=1000.0, period_s=PERIOD_S, signals=each)


def labels(number: int, name: str, *, namespace: str = "models", team: str = "search") -> SignalLabels:
    return SignalLabels(namespace=namespace, labels={"deployment": name, "key": f"d{number}", "team": team})
