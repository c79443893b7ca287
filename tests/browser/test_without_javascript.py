"""Without a script the pages are read and every form works."""

import os

from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit, log_in, open_place
from tests.browser.places import FULL
from tests.browser.stock import Stock, tiny_model
from tests.product import Product

NAME = f"plain-forms-{os.getpid()}"


def test_log_in_register_and_start_a_job(visit: Visit, product: Product) -> None:
    page = visit(None, java_script_enabled=False)
    log_in(page, "admin", product.password)
    page.goto("/models/new/")
    _send(page, b"this is no model")
    expect(page.get_by_role("alert").first).to_be_visible()
    expect(page.locator(".field-error")).to_contain_text("ONNX")
    _send(page, tiny_model(seed=5))
    expect(page.get_by_role("heading", level=1)).to_contain_text(NAME)

    page.goto(f"/models/{NAME}/versions/1/")
    page.get_by_role("link", name="Choose a technique").click()
    page.locator("input[name=technique][value=onnx-graph]").check()
    page.get_by_role("button", name="Start the job").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Job")
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.locator("#job-state")).to_contain_text("Cancel")


def _send(page: Page, content: bytes) -> None:
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("First version").set_input_files(
        {"name": "model.onnx", "mimeType": "application/octet-stream", "buffer": content}
    )
    page.get_by_role("button", name="Register model").click()


def test_every_page_can_be_read(visit: Visit, stock: Stock) -> None:
    page = visit("admin", java_script_enabled=False)
    for place in FULL:
        open_place(page, place, stock)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert len(page.locator("main").inner_text()) > 40, place


def test_the_log_stands_in_the_page(visit: Visit, stock: Stock) -> None:
    page = visit("admin", java_script_enabled=False)
    page.goto(stock.job)
    expect(page.locator("#log .log-line").nth(1)).to_be_visible()
    expect(page.locator("#job-verdict")).to_contain_text("points lost")


def test_a_filter_works_and_stands_in_the_address(visit: Visit, stock: Stock) -> None:
    page = visit("admin", java_script_enabled=False)
    page.goto("/models/")
    search = page.locator("main").get_by_role("searchbox").first
    search.fill("nothing-is-called-this")
    search.press("Enter")
    page.wait_for_url("**/models/?*nothing-is-called-this*")
    expect(page.get_by_text("No model matches")).to_be_visible()
