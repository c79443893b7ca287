"""S8: from a pod's new status in the cluster to the tick that an open page gets.

The way is watch, collector, observation, Postgres notification, event stream. On the fake and, where there is one, on a
real control plane; pods are played on both.
"""

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.installation import installation, row
from tests.benchmarks.result import Row, percentile, quartiles
from tests.deployments.targets.kubernetes.control_plane import ControlPlane, why_not

TARGET_S = 2.0


def run(*, full: bool) -> list[Row]:
    rows = _rows("the fake", _ask("-"))
    if reason := why_not():
        print(f"   not on a real control plane: {reason}")
        return rows
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slipway-bench-")))
        plane = ControlPlane(home)
        stack.callback(plane.stop)
        plane.start()
        config = home / "kubeconfig"
        config.write_text(plane.kubeconfig())
        return rows + _rows("a real API server", _ask(str(config)))


def _ask(kubeconfig: str) -> list[float]:
    """In an installation of its own."""
    with installation() as place:
        port = place.ports("live")["live"]
        live = row("live")
        argv = [str(port) if before == "--port" else each for before, each in _pairs(live.argv)]
        place.start_row(live, argv=argv).listens(port)
        child = ("-W", "ignore", "-m", "tests.benchmarks.event_to_page_child", str(port), kubeconfig)
        found: list[float] = json.loads(place.ask(*child).strip().splitlines()[-1])
        return found


def _pairs(argv: tuple[str, ...]) -> list[tuple[str, str]]:
    return list(zip(("", *argv), argv, strict=False))


def _rows(where: str, took_s: list[float]) -> list[Row]:
    return [
        Row(
            metric=f"a pod's status to the open page's tick, {said}, on {where}",
            value=value,
            unit="s",
            target=f"<= {TARGET_S:g} s" if said == "p99" else "",
            met=value <= TARGET_S if said == "p99" else None,
            n=len(took_s),
            spread=quartiles(took_s),
        )
        for said, value in (("p50", percentile(took_s, 0.5)), ("p99", percentile(took_s, 0.99)))
    ]
