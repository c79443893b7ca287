"""The real product in a real Chromium: `manage.py up` on ports of its own, pages with the policy on.

Every test fails on a console error or a blocked resource, so a page that only looks right does not pass.
Without a Chromium the tests are reported as not run. `SLIPWAY_BROWSER_HOME` names the home of an `up` that runs
already, for those who write these tests; it is not stopped.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from controlplane.embedded.runtime import running
from tests.browser.places import address
from tests.browser.stock import Stock, add_people, fill, traffic
from tests.chromium import CHROMIUM, FLAGS, MISSING
from tests.product import Product, running_product

DESK = {"width": 1440, "height": 900}
MEASURE_S = "4"
"""Of what a job takes most is measuring, and no verdict here hangs on a small difference."""
Visit = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason=MISSING))


# Of the package, so that product, traffic and browser end with their last test. Not of the session also because while
# a browser is open its event loop runs here, and Django refuses to query beside one.
@pytest.fixture(scope="package")
def product() -> Iterator[Product]:
    if home := os.environ.get("SLIPWAY_BROWSER_HOME"):
        up = running(Path(home))
        assert up is not None, f"Nothing runs in {home}."
        yield Product(Path(home), up)
        return
    with running_product(SLIPWAY_MEASURE_BUDGET_S=MEASURE_S) as product:
        yield product


@pytest.fixture(scope="package")
def people(product: Product) -> dict[str, str]:
    """Passwords by user name: the admin, a viewer of the same team, a stranger with an empty team."""
    return {"admin": product.password} | add_people(product)


@pytest.fixture(scope="package")
def stock(product: Product) -> Iterator[Stock]:
    """A model, a finished job, a cancelled one, and a deployment under load: something on every page."""
    kept = product.home / "stock.json"
    if not kept.is_file():
        kept.write_text(json.dumps(asdict(fill(product))))
    made = Stock(**json.loads(kept.read_text()))
    with traffic(made.endpoint):
        yield made


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        expect.set_options(timeout=15_000)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def sessions(browser: Browser, product: Product, people: dict[str, str]) -> Callable[[str], Any]:
    """The cookies of a person, who logs in once."""
    kept: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in kept:
            context = browser.new_context(base_url=product.url)
            log_in(context.new_page(), name, people[name])
            kept[name] = context.storage_state()
            context.close()
        return kept[name]

    return of


@pytest.fixture
def visit(browser: Browser, product: Product, sessions: Callable[[str], Any]) -> Iterator[Visit]:
    """Opens a window: `visit("admin", color_scheme="dark")`. What any window complains about fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def opened(who: str | None = "admin", **options: Any) -> Page:
        options = {"viewport": DESK, "storage_state": sessions(who) if who else None} | options
        context = browser.new_context(base_url=product.url, **options)
        contexts.append(context)
        page = context.new_page()
        listen(page, complaints)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not complaints, complaints


@pytest.fixture
def page(visit: Visit) -> Page:
    """A window of the admin, on the overview."""
    page = visit("admin")
    page.goto("/")
    return page


def open_place(page: Page, place: str, stock: Stock | None = None) -> None:
    """Goes to one of `places` and holds it to its status: an error page is clean and orderly, too."""
    answer = page.goto(address(place, stock))
    assert answer is not None
    assert answer.status == (404 if place == "not found" else 200), f"{place}: {answer.status} {page.url}"


def listen(page: Page, complaints: list[str]) -> None:
    """Console errors and uncaught ones. A page that was asked for and answered 4xx is not one of them."""

    def hear(message: ConsoleMessage) -> None:
        expected = "Failed to load resource" in message.text and message.location["url"] == page.url
        if message.type == "error" and not expected:
            complaints.append(f"{page.url}: {message.text}")

    page.on("console", hear)
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))


def log_in(page: Page, name: str, password: str) -> None:
    page.goto("/account/login/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/")


@contextmanager
def no_reload(page: Page) -> Iterator[None]:
    """Fails if the document was replaced inside the block."""
    page.evaluate("window.__same = true")
    yield
    assert page.evaluate("window.__same === true"), "the page was loaded anew"
