"""P1: a page of 50 from a list of 20,000, with team, token and permission, in CPU of the app and of Postgres.

Floor, peer and product answer the same cursors under the same granian, one after the other in every round.
"""

import base64
import http.client
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.benchmarks import list_page_mlflow
from tests.benchmarks.accounting import CpuOf
from tests.benchmarks.installation import Installation, Running, installation, row
from tests.benchmarks.list_page_rows import MODEL, VERSIONS
from tests.benchmarks.peers import PeerMissing
from tests.benchmarks.result import Row, compared, median, quartiles

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
    newest: int = 0
    """Of MLflow, which counts from here."""
    pages: int = PAGES
    """In a round."""

    def path(self, after: int) -> str:
        if self.newest:
            return list_page_mlflow.path(self.newest - after)
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
                _ask(arm, asked[: arm.pages])
                client_s += time.process_time() - before
                measured[arm.name].append(used.since() / arm.pages * 1000)
    rounds = len(measured["floor"])
    asked_ms = client_s / (rounds * sum(arm.pages for arm in arms)) * 1000
    print(f"   load generator: {asked_ms:.2f} ms CPU per request, not counted")
    for peer in ("stock", "mlflow"):
        if peer in measured:
            low, high = quartiles(measured[peer])
            print(f"   {peer}: {median(measured[peer]):.2f} ms [{low:.2f}, {high:.2f}]")
    return _rows(measured)


def _rows(measured: dict[str, list[float]]) -> list[Row]:
    floor, stock, ours = measured["floor"], measured["stock"], measured["product"]
    metric = "CPU of app and Postgres per page"
    against_floor = compared(metric=metric, unit="ms", values=ours, floor=floor, at_most=2.5, n=PAGES)
    peers = [("stock DRF", stock, 3.5), ("MLflow", measured.get("mlflow"), 9.0)]
    return [
        against_floor,
        *(
            _gain(name, theirs, ours, at_least=at_least, void=against_floor.met is None)
            for name, theirs, at_least in peers
            if theirs
        ),
    ]


def _gain(name: str, theirs: Sequence[float], ours: Sequence[float], *, at_least: float, void: bool) -> Row:
    gain = median(theirs) / median(ours)
    return Row(
        metric=f"{name}'s CPU of app and Postgres per page over ours",
        value=median(ours),
        unit="ms",
        baseline=median(theirs),
        ratio=gain,
        target=f">= {at_least:g}x",
        met=None if void else gain >= at_least,
        n=len(ours) * PAGES,
        spread=quartiles(ours),
    )


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
    try:
        (port,) = place.ports("mlflow").values()
        running = list_page_mlflow.start(place, port=port)
    except PeerMissing as error:
        print(f"   MLflow cannot be run here and is not measured: {error}")
    else:
        arms.append(
            Arm(
                name="mlflow",
                running=running,
                port=port,
                authorization="",
                newest=int(seeded["last_id"]),
                pages=PAGES // 4,
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
    """All say the same about the same versions; MLflow has as many of its own."""
    pages = {arm.name: json.loads(_ask(arm, [newest - 1000])) for arm in arms}
    if theirs := pages.pop("mlflow", None):
        first = int(theirs["model_versions"][0]["version"])
        assert (first, len(theirs["model_versions"])) == (VERSIONS - 1000, 50), theirs["model_versions"][0]
    assert pages["floor"]["items"] == pages["product"]["items"]
    assert len(pages["product"]["items"]) == 50
    theirs = [item["sha256"] for item in pages["stock"]["results"]]
    assert theirs == [item["sha256"] for item in pages["product"]["items"]]
