"""Stored windows with latencies of a known distribution."""

from collections.abc import Iterable

from deployments.domain.sketch import Sketch
from deployments.telemetry.rollup import Levels, Window, WindowKey


def sketch_of(seconds: Iterable[float]) -> Sketch:
    return Sketch.from_values(seconds)


def window(
    deployment: int,
    *,
    ts: float,
    seconds: Iterable[float],
    resolution_s: int = 10,
    replica: str | None = None,
    revision: int | None = None,
) -> Window:
    latencies = list(seconds)
    return Window(
        key=WindowKey(
            ts=int(ts),
            resolution_s=resolution_s,
            deployment=f"d{deployment}",
            revision=revision,
            replica=replica,
        ),
        observed_s=float(resolution_s),
        requests=len(latencies),
        latency=sketch_of(latencies).to_bytes(),
        levels=Levels(queue_depth=5, in_flight=5, replicas=5),
        queue_depth_mean=1.0,
        queue_depth_max=3.0,
        in_flight_mean=2.0,
        in_flight_max=4.0,
        replicas_ready=2.0,
        scrapes_ok=5,
    )
