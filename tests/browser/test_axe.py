"""Every kind of page is clean for Axe (WCAG 2.2 AA), in both themes, and fits a desk and a phone."""

from typing import Any

from django.conf import settings
from playwright.sync_api import Page, expect

from tests.browser.conftest import DESK, Visit, open_place
from tests.browser.places import EMPTY, FULL, address
from tests.browser.stock import Stock

AXE = (settings.BASE_DIR / "node_modules" / "axe-core" / "axe.min.js").read_text()
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
PHONE, SMALL_PHONE = {"width": 390, "height": 844}, {"width": 360, "height": 740}
# Nothing fades while it is judged; otherwise a half-drawn colour fails by chance.
CALM = {"reduced_motion": "reduce"}

THEMES = ("light", "dark")


def axe(page: Page, *, rules: list[str] | None = None) -> list[dict[str, Any]]:
    """What Axe finds on the page as it stands, without what it calls best practice; only these `rules` if given."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    found = page.evaluate(
        "only => axe.run(document, {runOnly: only, resultTypes: ['violations']}).then(r => r.violations)",
        rules or TAGS,
    )
    return [
        {"id": one["id"], "nodes": [node["html"][:160] for node in one["nodes"][:3]], "help": one["help"]}
        for one in found
    ]


def settle(page: Page) -> None:
    """Fragments that load themselves have come, charts are drawn."""
    page.wait_for_load_state("load")
    expect(page.locator(".skeleton, .htmx-request")).to_have_count(0)
    if page.locator("[data-charts]").count():
        page.locator(".main-svg").first.wait_for()


def overflow(page: Page) -> list[str]:
    """What stands out of the window to the right, unless it scrolls inside its own box."""
    return page.evaluate(  # type: ignore[no-any-return]
        """() => {
            const wide = document.documentElement.clientWidth;
            if (document.documentElement.scrollWidth <= wide) return [];
            return [...document.querySelectorAll("body *")]
                .filter((node) => node.getBoundingClientRect().right > wide + 1)
                .slice(0, 5).map((node) => node.outerHTML.slice(0, 160));
        }"""
    )


def judged(page: Page, theme: str) -> list[Any]:
    """What is wrong with an open page, which follows when its reader's system changes. In the dark it is judged by its
    contrasts alone, which is all that a theme changes."""
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    return axe(page, rules=["color-contrast"] if theme == "dark" else None) + overflow(page)


def test_every_page_is_clean_and_fits(visit: Visit, stock: Stock) -> None:
    page = visit("admin", **CALM)
    wrong: dict[str, Any] = {}
    grounds: set[str] = set()

    def resize(size: dict[str, int]) -> None:
        page.set_viewport_size(size)  # type: ignore[arg-type]
        if page.locator("[data-charts]").count():  # they follow in their own time
            open_place(page, place, stock)
            settle(page)

    for place in FULL:
        open_place(page, place, stock)
        settle(page)
        for size in (DESK, PHONE):
            resize(size)
            for theme in THEMES:
                if found := judged(page, theme):
                    wrong[f"{place}, {size['width']}, {theme}"] = found
                grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        resize(SMALL_PHONE)
        if found := overflow(page):
            wrong[f"{place}, on the smallest phone"] = found
    assert not wrong
    assert len(grounds) == len(THEMES)


def test_pages_with_nothing_in_them_are_clean(visit: Visit) -> None:
    page = visit("sam", viewport=PHONE, **CALM)
    wrong: dict[str, Any] = {}
    for place in EMPTY:
        open_place(page, place)
        settle(page)
        for theme in THEMES:
            if found := judged(page, theme):
                wrong[f"{place}, {theme}"] = found
    assert not wrong


def test_the_login_page_is_clean(visit: Visit) -> None:
    page = visit(None, viewport=PHONE, **CALM)
    page.goto(address("login"))
    for theme in THEMES:
        assert not judged(page, theme)
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password", exact=True).fill("not it")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").wait_for()
    for theme in THEMES:
        assert not judged(page, theme)


def test_what_a_reader_of_the_team_sees_is_clean_and_offers_no_change(visit: Visit, stock: Stock) -> None:
    page = visit("vera", **CALM)
    for place in ("model", "version", "job", "deployment", "plan"):
        open_place(page, place, stock)
        settle(page)
        assert not axe(page)
        assert not page.locator("main form[method=post]").count(), place


def test_the_refused_form_is_clean(page: Page) -> None:
    page.goto("/models/new/")
    page.get_by_label("Name").fill("refused-one")
    page.get_by_label("First version").set_input_files(
        {"name": "model.onnx", "mimeType": "application/octet-stream", "buffer": b"no model"}
    )
    page.get_by_role("button", name="Register model").click()
    page.get_by_role("alert").wait_for()
    assert not axe(page)
