"""Pictures of the pages, for the README and for eyes, written into the folder that `SLIPWAY_SCREENSHOTS` names.

With `SLIPWAY_SCREENSHOTS=docs` the README's picture, docs/deployment.png, is made anew.
"""

import os
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import DESK, Visit
from tests.browser.stock import Api, Stock
from tests.browser.test_axe import settle
from tests.product import Product

MAX_BYTES = 300_000
DRAWN_POINTS = 3
A_FULL_WINDOW = 27
"""Points of 10 s in five minutes, but for the edges: what the README shows."""
PICTURED = {"rate_per_s": 60, "duration_s": 420}
LATENCIES = """() => Math.max(0, ...document.querySelector("[data-chart=latency] .chart-plot").data
    .map((line) => line.y.filter((value) => value !== null).length))"""
END_OF_REPLICAS = (
    "Math.ceil(document.querySelector('#replicas').getBoundingClientRect().bottom + scrollY + 32)"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    chosen = Path(os.environ.get("SLIPWAY_SCREENSHOTS") or tmp_path)
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def test_the_deployment_page_under_load(visit: Visit, product: Product, stock: Stock, folder: Path) -> None:
    api, load = Api(product), f"{stock.deployment.strip('/')}/load/"
    page = visit("admin", color_scheme="light", reduced_motion="reduce")
    page.goto(f"{stock.deployment}?range=5m")
    settle(page)
    expect(page.locator("#health")).to_contain_text("Healthy")
    expect(page.locator("#connection")).to_contain_text("Live")
    wanted, points = DRAWN_POINTS, 0
    if os.environ.get("SLIPWAY_SCREENSHOTS"):
        wanted = A_FULL_WINDOW
        api("PUT", load, PICTURED)
    while points < wanted:  # each answer of the series adds what the last seconds brought
        with page.expect_response(lambda answer: "/series/" in answer.url, timeout=60_000):
            pass
        points = page.evaluate(LATENCIES)
    # As tall as what tells of the endpoint: the rail reaches its end, as it does on a screen.
    page.set_viewport_size(DESK | {"height": page.evaluate(END_OF_REPLICAS)})
    expect(page.locator(".tiles")).to_contain_text("ms")
    picture = folder / "deployment.png"
    page.screenshot(path=picture)
    api("DELETE", load)
    assert 20_000 < picture.stat().st_size < MAX_BYTES
