"""The policy is strict on every page. No page runs into it: that would be an error
in the console, which fails any test."""

from playwright.sync_api import Browser, Response

from tests.browser.conftest import Visit, listen
from tests.browser.places import FULL, address
from tests.browser.stock import Stock
from tests.product import Product


def test_every_page_says_its_headers(visit: Visit, stock: Stock) -> None:
    page = visit("admin")
    for place in FULL:
        answer = page.request.get(address(place, stock))
        held(answer.headers, place)


def test_the_login_page_says_its_headers(visit: Visit) -> None:
    page = visit(None)
    answer = page.goto("/account/login/")
    assert isinstance(answer, Response)
    held(answer.headers, "login")


def held(headers: dict[str, str], place: str) -> None:
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'", place
    assert policy["script-src"] == policy["style-src"] == "'self'", place
    assert policy["frame-ancestors"] == policy["object-src"] == "'none'", place
    assert headers["x-content-type-options"] == "nosniff", place
    assert headers["x-frame-options"] == "DENY", place
    assert headers["referrer-policy"] == "same-origin", place


def test_what_comes_from_elsewhere_is_blocked_and_heard(browser: Browser, product: Product) -> None:
    """What every test of a page listens for works: without this, hearing nothing would prove nothing."""
    context = browser.new_context(base_url=product.url)
    page = context.new_page()
    heard: list[str] = []
    listen(page, heard)
    page.goto("/account/login/")
    page.evaluate(
        """() => new Promise((done) => {
            let blocked = 0;
            document.addEventListener("securitypolicyviolation", () => ++blocked === 2 && done());
            const script = document.createElement("script");
            script.textContent = "window.__ran = true";
            const image = document.createElement("img");
            image.src = "http://elsewhere.invalid/x.png";
            document.body.append(script, image);
        })"""
    )
    assert page.evaluate("window.__ran === undefined")
    assert len([one for one in heard if "Content Security Policy" in one]) == 2
    context.close()
