"""What an open page does by itself, and what its address keeps: charts, logs, a stop that can be taken back."""

import os
import re
import signal

from playwright.sync_api import Page, expect

from tests.browser.conftest import no_reload
from tests.browser.stock import Stock

BETWEEN = re.compile(r"[?&]from=\d+&to=\d+")
PATIENCE_MS = 30_000


def drawn(page: Page, address: str) -> None:
    page.goto(address)
    page.locator("[data-chart=latency] .main-svg").first.wait_for()
    expect(page.locator("[data-charts-state]")).to_contain_text("a point is")


def test_dragging_over_a_chart_zooms_all_and_stands_in_the_address(page: Page, stock: Stock) -> None:
    drawn(page, stock.deployment)
    box = page.locator("[data-chart=latency] .chart-plot").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.6, middle)
    expect(page.locator(".chart-cursor:visible")).not_to_have_count(0)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, middle, steps=8)
    page.mouse.up()
    page.wait_for_url(BETWEEN)
    chosen = page.locator("[data-charts-between]")
    expect(chosen).not_to_have_text("Between…")
    expect(page.locator("[data-charts-csv]")).to_have_attribute("href", BETWEEN)
    said, address = str(chosen.text_content()), page.url
    page.go_back()
    expect(chosen).to_have_text("Between…")
    expect(page.locator('[data-range="15m"]')).to_have_attribute("aria-current", "true")
    drawn(page, address)  # as a colleague opens it
    expect(chosen).to_have_text(said)


def test_pause_table_and_range_survive_a_reload(page: Page, stock: Stock) -> None:
    drawn(page, f"{stock.deployment}?range=5m")
    page.get_by_label("Refresh").select_option("Every 30 s")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="View as table").click()
    expect(page.locator("[data-chart=latency] table")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Refresh")).to_have_value("30")
    expect(page.locator("[data-charts-pause]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("[data-chart=latency] table")).to_be_visible()
    expect(page.locator('[data-range="5m"]')).to_have_attribute("aria-current", "true")


def test_a_stop_of_the_load_counts_down_and_is_taken_back(page: Page, stock: Stock) -> None:
    page.goto(stock.deployment)
    page.get_by_label("Rate").fill("5")
    page.get_by_role("button", name="Start the load").click()
    expect(page.get_by_role("button", name="Stop the load")).to_be_visible()
    with no_reload(page):
        expect(page.locator("#load")).to_contain_text(re.compile(r"Sent\s*[1-9]"), timeout=PATIENCE_MS)
    page.get_by_role("button", name="Stop the load").click()
    toast = page.locator("[data-toast]")
    expect(toast).to_contain_text(re.compile(r"The load stops\s+in [1-8] s"))
    toast.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("The load goes on.")).to_be_visible()
    expect(toast).to_have_count(0)

    page.get_by_role("button", name="Stop the load").click()
    expect(toast).to_be_visible()
    page.goto("/")  # nobody watches it, and it stops all the same
    page.goto(stock.deployment)
    expect(toast).to_have_count(0)
    with no_reload(page):
        expect(page.locator("#load")).to_contain_text("Ended", timeout=PATIENCE_MS)
        expect(page.get_by_role("button", name="Start the load")).to_be_visible()


def test_the_log_of_a_replica_grows_in_the_open_page(page: Page, stock: Stock) -> None:
    page.goto(f"{stock.deployment}logs/")
    begun = page.locator(".log-message", has_text="listening port=")
    before = begun.count()
    pid = re.search(r"pid=(\d+)", str(begun.last.text_content()))
    assert pid is not None
    with no_reload(page):
        os.kill(int(pid[1]), signal.SIGKILL)  # the node starts it again under its name
        expect(begun).to_have_count(before + 1, timeout=PATIENCE_MS)
        ids = page.locator(".log-line").evaluate_all("lines => lines.map((line) => Number(line.dataset.id))")
        assert ids == sorted(set(ids))
        page.get_by_label("Filter lines").fill("listening")
        expect(page.locator(".log-line:visible")).to_have_count(before + 1)
        expect(page.locator("[data-log-count]")).to_contain_text(f"{before + 1} of ")
    expect(page.locator("#health")).to_contain_text("Healthy", timeout=PATIENCE_MS)
    with page.expect_download() as asked:
        page.get_by_role("link", name="Download the whole log").click()
    assert "listening" in asked.value.path().read_text()
