"""The real product in a real Chromium: `manage.py up` on ports of its own, pages with the policy on.

Every test fails on a console error or a blocked resource, so a page that only looks right does not pass.
Without a Chromium the tests are reported as not run.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.product import Product, running_product

ROOT = Path(settings.BASE_DIR)
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="not run: no Chromium on PATH (Debian: chromium)"))


@pytest.fixture(scope="session")
def product() -> Iterator[Product]:
    with running_product() as product:
        yield product


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, product: Product) -> Iterator[Page]:
    """A logged-in page. Console errors and blocked resources fail the test when it ends."""
    context = browser.new_context(base_url=product.url, viewport={"width": 1440, "height": 900})
    page = context.new_page()
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto("/account/login/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password", exact=True).fill(product.password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/")
    page.complaints = complaints  # type: ignore[attr-defined]
    yield page
    context.close()
    assert not complaints, complaints


def axe(page: Page) -> list[dict[str, Any]]:
    """What Axe (WCAG 2.2 AA) finds on the page as it stands, without what it calls best practice."""
    page.evaluate(AXE.read_text())
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    found = page.evaluate(
        "tags => axe.run(document, {runOnly: tags}).then(result => result.violations)", tags
    )
    return [
        {"id": one["id"], "nodes": [node["html"][:200] for node in one["nodes"][:3]], "help": one["help"]}
        for one in found
    ]
