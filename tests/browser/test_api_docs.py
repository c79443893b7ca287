"""The API's page in a real browser: Swagger UI under the policy of every other page, with the reader's session."""

from collections.abc import Callable

from playwright.sync_api import Page, Route, expect

Visit = Callable[..., Page]
DOCS = "/api/v1/docs/"


def _opened(page: Page) -> Page:
    page.goto(DOCS)
    expect(page.locator(".opblock").first).to_be_visible()
    return page


def test_the_page_shows_every_operation_and_opens_one_to_its_shapes(visit: Visit) -> None:
    page = _opened(visit("vera"))
    told = page.evaluate(
        "fetch('/api/v1/schema/').then(answer => answer.json())"
        ".then(document => Object.values(document.paths).flatMap(Object.keys).length)"
    )
    expect(page.locator(".opblock")).to_have_count(told)
    for tag in ("Registry", "Optimizer", "Deployments", "Accounts"):
        expect(page.locator(f'.opblock-tag[data-tag="{tag}"]')).to_be_visible()
    page.locator("#operations-Registry-post_models .opblock-summary-control").click()
    body = page.locator("#operations-Registry-post_models")
    expect(body.get_by_text("Not there, or another team's.")).to_be_visible()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert _contrast(page, "#operations-Registry-post_models .opblock-summary-path") > 4.5, scheme


def _contrast(page: Page, place: str) -> float:
    """Of the text against the page, as WCAG counts it; the tint of the row in between is faint."""
    return float(
        page.locator(place).evaluate(
            """(text) => {
              const light = (colour) => {
                const pen = new OffscreenCanvas(1, 1).getContext("2d");
                pen.fillStyle = colour;
                pen.fillRect(0, 0, 1, 1);
                const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3)
                  .map((one) => one / 255)
                  .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
              };
              const [ink, ground] = [text, document.body].map((one) => getComputedStyle(one))
                .map((style, place) => light(place ? style.backgroundColor : style.color));
              return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
            }"""
        )
    )


def test_a_request_goes_out_as_the_reader_and_a_change_with_the_csrf_token(visit: Visit) -> None:
    """With no token typed in. Without the one of the form the session alone would be refused as forged; the change is
    not really sent."""
    page = _opened(visit("vera"))
    read = page.locator("#operations-Accounts-get_me")
    read.locator(".opblock-summary-control").click()
    read.get_by_role("button", name="Try it out").click()
    with page.expect_response("**/api/v1/me/") as answer:
        read.get_by_role("button", name="Execute").click()
    assert answer.value.status == 200
    assert answer.value.json()["role"] == "viewer"

    seen: list[str] = []

    def hear(route: Route) -> None:
        seen.append(route.request.headers.get("x-csrftoken", ""))
        route.fulfill(status=202, json={})

    page.route("**/api/v1/models/", hear)
    change = page.locator("#operations-Registry-post_models")
    change.locator(".opblock-summary-control").click()
    change.get_by_role("button", name="Try it out").click()
    with page.expect_response("**/api/v1/models/"):
        change.get_by_role("button", name="Execute").click()
    assert [len(token) for token in seen] == [64]


def test_nobody_reads_it_without_a_login(visit: Visit) -> None:
    page = visit(None)
    page.goto(DOCS)
    page.wait_for_url(f"**/account/login/?next={DOCS}")
