"""The whole line as a person walks it: register, optimize, see a rejection, roll out, watch, go back."""

import os
import re

from playwright.sync_api import FilePayload, Page, expect

from tests.browser.conftest import Visit, no_reload
from tests.browser.stock import Api, Stock
from tests.product import Product

NAME = f"parcel-sorter-{os.getpid()}"
LONG_MS = 60_000
# No gain is claimed, in the words of whichever rule spoke first; how noisy the machine is decides which.
REJECTION = re.compile("Faster but inaccurate|Not faster|Inconclusive")
POINTS = """() => Math.max(0, ...[...document.querySelectorAll(".js-plotly-plot")]
    .flatMap((plot) => (plot.data ?? []).map((line) => line.y.filter((value) => value !== null).length)))"""


def file(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def test_a_job_is_cancelled_from_its_page(page: Page, stock: Stock) -> None:
    page.goto(stock.version)
    page.get_by_role("radio", name="INT8, dynamic").check()
    page.get_by_role("button", name="Start the job").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.locator("#job-state")).to_contain_text("Cancelled", timeout=LONG_MS)
    expect(page.get_by_role("button", name="Retry the job")).to_be_visible()


def test_a_stranger_finds_nothing(visit: Visit, stock: Stock) -> None:
    page = visit("sam")
    for path in (stock.model, stock.version, stock.job, stock.deployment, stock.rollout):
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 404, path
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.get_by_role("link", name="Models", exact=True).first).to_be_visible()


def test_a_change_made_elsewhere_is_on_the_open_page_within_two_seconds(
    visit: Visit, product: Product, stock: Stock
) -> None:
    theirs, name = visit("vera"), f"made-elsewhere-{os.getpid()}"
    theirs.goto("/models/")
    expect(theirs.locator("#connection")).to_contain_text("Live")
    with no_reload(theirs):
        Api(product)("POST", "models/", {"name": name})
        expect(theirs.get_by_role("link", name=name)).to_be_visible(timeout=2_000)
