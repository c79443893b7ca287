"""P1: a page of 50 from a list of 20,000, with team, token and permission, in CPU of the app and of Postgres.

Floor, peer and product answer the same cursors under the same granian, one after the other in every round.
"""

import base64
import http.client
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.benchmarks.accounting import CpuOf
from tests.benchmarks.installation import Installation, Running, installation, row
from tests.benchmarks.list_page_rows import MODEL, VERSIONS
from tests.benchmarks.result import Row, compared, median

ROUNDS, PAGES, WARM_UP = 5, 400, 100
SEED = 20261124
PATH = f"/api/v1/models/{MODEL}/versions/"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One server under test, and how it wants to be asked for the page after a version's id."""

    name: str
    running: Running
    port: int
    authorization: str
    opaque_cursor: bool = False

    def path(self, after: int) -> str:
        if self.opaque_cursor:
            return f"{PATH}?cursor={quote(base64.b64encode(f'p={after}'.encode()).decode())}"
        return f"{PATH}?cursor={after}&limit=50"


def run(*, full: bool) -> list[Row]:
    with installation() as place:
        seeded = json.loads(place.ask("-m", "tests.benchmarks.list_page_rows"))
        arms = _start(place, seeded)
        cursors = random.Random(SEED)
        newest = int(seeded["last_id"])
        _check(arms, newest)
        for arm in arms:
            _ask(arm, _cursors(cursors, newest, WARM_UP))
        measured: dict[str, list[float]] = {arm.name: [] for arm in arms}
        client_s = 0.0
        for _ in range(4 * ROUNDS if full else ROUNDS):
            asked = _cursors(cursors, newest, PAGES)
            for arm in arms:
                used = CpuOf.trees([arm.running.pid, place.servers.postgres_pid])
                before = time.process_time()
                _ask(arm, asked)
                client_s += time.process_time() - before
                measured[arm.name].append(used.since() / PAGES * 1000)
    rounds = len(measured["floor"])
    print(
        f"   load generator: {client_s / (rounds * PAGES * len(arms)) * 1000:.2f} ms CPU per request, not counted"
    )
    print("   stock DRF: " + _said(measured["stock"]) + "; MLflow is not installed here and was not measured")
    return _rows(measured)


def _rows(measured: dict[str, list[float]]) -> list[Row]:
    floor, stock, ours = measured["floor"], measured["stock"], measured["product"]
    metric = "CPU of app and Postgres per page"
    against_floor = compared(metric=metric, unit="ms", values=ours, floor=floor, at_most=2.5, n=PAGES)
    gain = median(stock) / median(ours)
    against_stock = Row(
        metric="stock DRF's CPU of app and Postgres per page over ours",
        value=median(ours),
        unit="ms",
        baseline=median(stock),
        ratio=gain,
        target=">= 3.5x",
        met=None if against_floor.met is None else gain >= 3.5,
        n=len(ours) * PAGES,
        spread=against_floor.spread,
    )
    return [against_floor, against_stock]


def _said(values: Sequence[float]) -> str:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median(values):.2f} ms [{low:.2f}, {high:.2f}]"


def _start(place: Installation, seeded: dict[str, Any]) -> list[Arm]:
    applications = {
        "floor": "tests.benchmarks.list_page_floor:application",
        "stock": "tests.benchmarks.list_page_stock:application",
        "product": "controlplane.wsgi:application",
    }
    ports = place.ports(*applications)
    arms = []
    for name, application in applications.items():
        web = row("web", web=f"127.0.0.1:{ports[name]}")
        argv = [application if part == "controlplane.wsgi:application" else part for part in web.argv]
        running = place.start_row(web, argv=argv, name=name).listens(ports[name])
        bearer = f"Token {seeded['stock_token']}" if name == "stock" else f"Bearer {seeded['token']}"
        arms.append(
            Arm(
                name=name,
                running=running,
                port=ports[name],
                authorization=bearer,
                opaque_cursor=name == "stock",
            )
        )
    return arms


def _cursors(numbers: random.Random, newest: int, count: int) -> list[int]:
    """Ids inside the list, so that every page is full."""
    return [numbers.randrange(newest - VERSIONS + 200, newest) for _ in range(count)]


def _ask(arm: Arm, after: Sequence[int]) -> bytes:
    """Asks one page after another on one connection; returns the last."""
    connection = http.client.HTTPConnection("127.0.0.1", arm.port, timeout=10)
    body = b""
    try:
        for cursor in after:
            connection.request("GET", arm.path(cursor), headers={"Authorization": arm.authorization})
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, (arm.name, answer.status, body[:500])
    finally:
        connection.close()
    return body


def _check(arms: Sequence[Arm], newest: int) -> None:
    """All three say the same about the same versions."""
    pages = {arm.name: json.loads(_ask(arm, [newest - 1000])) for arm in arms}
    assert pages["floor"]["items"] == pages["product"]["items"]
    assert len(pages["product"]["items"]) == 50
    theirs = [item["sha256"] for item in pages["stock"]["results"]]
    assert theirs == [item["sha256"] for item in pages["product"]["items"]]
