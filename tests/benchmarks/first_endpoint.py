"""S12: `make demo` on a machine that has the packages: from its start to an endpoint that answers, and to the
demo's last line.

In a home of its own and on free ports. Once in the short form: it takes as long as it takes.
"""

import re
import signal
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from controlplane.settings.environment import REPOSITORY
from tests.benchmarks.result import Row, median, quartiles
from tests.product import start

AT_MOST_S = 120.0
GIVE_UP_S = 300.0
LOOK_S = 0.1
ENDPOINT = re.compile(r"Endpoint: (http\S+)")
LAST = "Look at "


@dataclass(frozen=True, kw_only=True)
class Times:
    endpoint_s: float
    shown_s: float


def run(*, full: bool) -> list[Row]:
    found = [_once() for _ in range(5 if full else 1)]
    return [
        _row(
            "first_endpoint",
            "start of the demo to an endpoint that answers",
            [one.endpoint_s for one in found],
        ),
        _row("first_demo", "start of the demo to its line “Look at”", [one.shown_s for one in found]),
    ]


def _row(name: str, metric: str, values: list[float]) -> Row:
    return Row(
        metric=metric,
        value=median(values),
        unit="s",
        target=f"<= {AT_MOST_S:g} s",
        met=median(values) <= AT_MOST_S,
        n=len(values),
        spread=quartiles(values),
    )


def _once() -> Times:
    with _demo() as (log, began):
        address = _until(log, ENDPOINT)
        _answers(address)
        endpoint_s = time.monotonic() - began
        _until(log, re.compile(f"({LAST})"))
        return Times(endpoint_s=endpoint_s, shown_s=time.monotonic() - began)


@contextmanager
def _demo() -> Iterator[tuple[Path, float]]:
    """The log of a running demo, and when it was started."""
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        home, log = Path(folder) / "home", Path(folder) / "demo.log"
        home.mkdir()
        vendor = REPOSITORY / ".slipway" / "vendor"
        if vendor.is_dir():
            (home / "vendor").symlink_to(vendor)
        began = time.monotonic()
        process = start("demo", home=home, log=log)
        try:
            yield log, began
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def _until(log: Path, pattern: re.Pattern[str]) -> str:
    """What the pattern's group found in the log, once it stands there."""
    deadline = time.monotonic() + GIVE_UP_S
    while (found := pattern.search(log.read_text(errors="replace"))) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the demo did not get to {pattern.pattern!r}: {log.read_text()[-3000:]}")
        time.sleep(LOOK_S)
    return found.group(1)


def _answers(address: str) -> None:
    """An empty request is refused by the model server itself: 400, and not by the proxy."""
    asked = urllib.request.Request(address, data=b"{}", headers={"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=10)
    assert refused.value.code == 400
