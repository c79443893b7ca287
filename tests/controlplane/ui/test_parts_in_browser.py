"""The parts in a real Chromium, with the policy on: what moves, what stays, and what a keyboard reaches."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.chromium import CHROMIUM, FLAGS, MISSING
from tests.controlplane.ui.urls_of_parts import ticks

VENDOR = Path(settings.ENVIRONMENT.home) / "vendor"
AXE = Path(settings.BASE_DIR) / "node_modules/axe-core/axe.min.js"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason=MISSING),
    pytest.mark.skipif(not VENDOR.is_dir(), reason="not run: no vendored files (manage.py vendor_assets)"),
]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with (
        override_settings(
            ROOT_URLCONF="tests.controlplane.ui.urls_of_parts", STATICFILES_DIRS=[("vendor", VENDOR)]
        ),
        make_server("127.0.0.1", 0, StaticFilesHandler(WSGIHandler()), Server, Quiet) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        ticks.send(None)
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """Any error in the console, a blocked style or script included, fails the test."""
    context = browser.new_context(
        base_url=address, viewport={"width": 1440, "height": 900}, timezone_id="Europe/Berlin"
    )
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    ticks.refuse, ticks.ending = False, ""
    yield page
    context.close()
    ticks.send(None)
    assert [text for text in complaints if "503" not in text] == []


@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_on_the_style_guide(page: Page, width: int) -> None:
    """All that a theme changes is contrasts."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(reduced_motion="reduce")
    page.goto("/styleguide/")
    expect(
        page.locator("[data-chart=latency] .js-plotly-plot, [data-chart=latency] .plot-container").first
    ).to_be_visible()
    page.evaluate(AXE.read_text())
    for scheme, rules in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found = page.evaluate(
            "rules => axe.run(document, rules)"
            ".then(result => result.violations.map(one => [one.id, one.nodes[0].html]))",
            rules,
        )
        assert found == [], scheme


def test_axe_finds_nothing_in_what_opens(page: Page) -> None:
    """The menu over a chart as a table and a toast, then a dialog over all of it."""
    page.emulate_media(reduced_motion="reduce")
    page.goto("/styleguide/")
    page.locator("[data-chart=replicas] .main-svg").first.wait_for()
    page.get_by_role("button", name="View as table").click()
    expect(page.locator("[data-chart=replicas] tbody tr").first).to_be_visible()
    expect(page.locator("#sg-toast")).to_be_visible()
    page.get_by_role("button", name="Account").click()
    page.evaluate(AXE.read_text())
    judge = "axe.run(document).then(result => result.violations.map(one => [one.id, one.nodes[0].html]))"
    assert page.evaluate(judge) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Roll back to 5").first.click()
    expect(page.locator("#sg-rollback")).to_be_visible()
    assert page.evaluate(judge) == []


def test_a_row_under_the_keys_says_its_times_in_full(page: Page) -> None:
    page.goto("/styleguide/")
    page.keyboard.press("Tab")
    page.locator("#sg-list .row-link").first.focus()
    said = (
        page.locator("#sg-list tbody tr")
        .first.locator("time")
        .evaluate("time => getComputedStyle(time, '::after').content")
    )
    assert re.search(r"20\d\d.*\(Europe/Berlin\)", said)


@pytest.mark.parametrize("width", [360, 720, 1440])
def test_nothing_is_wider_than_the_page(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto("/styleguide/")
    expect(page.locator(".chart-plot svg.main-svg").first).to_be_attached()
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_tick_refreshes_its_part_and_leaves_focus_text_and_open_details_alone(page: Page) -> None:
    page.goto("/part/")
    expect(page.locator("#connection")).to_have_text("Live")
    count = page.locator("#count")
    page.locator("#more summary").click()
    page.get_by_label("Word").fill("half a wo")
    for _ in range(3):
        before = count.text_content() or ""
        ticks.send("job:12")
        expect(count).not_to_have_text(before)
    expect(page.get_by_label("Word")).to_be_focused()
    expect(page.get_by_label("Word")).to_have_value("half a wo")
    expect(page.locator("#more")).to_have_attribute("open", "")
    page.get_by_role("button", name="Press").focus()
    before = count.text_content() or ""
    ticks.send("job:12")
    expect(count).not_to_have_text(before)
    expect(page.get_by_role("button", name="Press")).to_be_focused()
    siblings = page.evaluate("document.getElementById('part').parentNode.childNodes.length")
    before = count.text_content() or ""
    ticks.send("job:12")
    expect(count).not_to_have_text(before)
    assert page.evaluate("document.getElementById('part').parentNode.childNodes.length") == siblings


def test_only_endings_are_announced(page: Page) -> None:
    page.goto("/part/")
    expect(page.locator("#connection")).to_have_text("Live")
    count = page.locator("#count")
    before = count.text_content() or ""
    ticks.send("job:12")
    expect(count).not_to_have_text(before)
    expect(page.locator("#announcer")).to_have_text("")
    ticks.ending = "Job 12 succeeded"
    ticks.send("job:12")
    expect(page.locator("#announcer")).to_have_text("Job 12 succeeded")


def test_a_countdown_is_said_once(page: Page) -> None:
    page.clock.install()
    page.goto("/styleguide/")
    announcer, left = page.locator("#announcer"), page.locator("#sg-toast [data-toast-left]")
    said = re.compile(r"^Stopping the load in \d+ s\. Cancel takes it back\.$")
    expect(announcer).to_have_text(said)
    once, first = str(announcer.text_content()), str(left.text_content())
    page.clock.fast_forward(3_000)
    expect(left).not_to_have_text(first)
    expect(announcer).to_have_text(once)
    expect(page.locator("#sg-toast [role=status]")).to_have_count(0)
    expect(page.locator("#sg-toast")).not_to_have_attribute("role", "status")


def test_after_a_refused_stream_everything_is_asked_for_again(page: Page) -> None:
    page.goto("/part/")
    expect(page.locator("#connection")).to_have_text("Live")
    ticks.refuse = True
    with page.expect_response(lambda answer: answer.status == 503):
        ticks.send(None)
    expect(page.locator("#connection")).to_have_text("Reconnecting")
    before = page.locator("#count").text_content() or ""
    ticks.refuse = False
    expect(page.locator("#connection")).to_have_text("Live", timeout=15_000)
    expect(page.locator("#count")).not_to_have_text(before)


def test_what_may_be_old_is_greyed_wherever_it_listens(page: Page) -> None:
    """Parts, charts and logs alike, half a minute after the stream was lost."""
    page.clock.install()
    page.goto("/styleguide/")
    expect(page.locator("#connection")).to_have_text("Live")
    expect(page.locator("#charts")).to_have_css("opacity", "1")
    ticks.refuse = True
    with page.expect_response(lambda answer: answer.status == 503):
        ticks.send(None)
    expect(page.locator("#connection")).to_have_text("Reconnecting")
    page.clock.fast_forward(31_000)
    expect(page.locator("#connection")).to_have_text(re.compile(r"Stale since \d\d:\d\d"))
    for part in ("#charts", "#log"):
        expect(page.locator(part)).to_have_css("opacity", "0.55")


def test_a_filter_begins_at_the_first_page_and_back_gives_a_living_page(page: Page) -> None:
    page.goto("/list/?cursor=some-place&sort=name")
    expect(page.locator("#connection")).to_have_text("Live")
    count, text = page.locator("#count"), page.get_by_label("Name")
    before = count.text_content() or ""
    text.fill("bert")
    page.wait_for_url("**/list/?q=bert&sort=name")
    with page.expect_response("**/list/?q=bert&sort=name"):
        text.press("Enter")  # says the same again: no second place to come back from
    expect(count).not_to_have_text(before)
    page.get_by_role("button", name="Account").click()
    page.get_by_role("button", name="Light").click()
    page.go_back()
    page.wait_for_url("**/list/?cursor=some-place&sort=name")
    expect(text).to_have_value("")
    expect(page.locator("#connection")).to_have_text("Live")
    expect(page.locator("[data-theme-choice=light]")).to_have_attribute("aria-pressed", "true")
    before = count.text_content() or ""
    ticks.send("job:12")
    expect(count).not_to_have_text(before)


def test_a_total_stays_when_its_list_refreshes(page: Page) -> None:
    page.goto("/list/")
    expect(page.locator("#connection")).to_have_text("Live")
    foot = page.get_by_role("navigation", name="Pages")
    expect(foot).to_contain_text("50 rows of 10,000+")
    before = page.locator("#count").text_content() or ""
    ticks.send("job:12")
    expect(page.locator("#count")).not_to_have_text(before)
    expect(foot).to_contain_text("50 rows of 10,000+")


def test_a_refresh_of_the_address_before_the_filter_is_not_shown(page: Page) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.is_navigation_request():
            route.continue_()
        else:
            held.append(route)

    page.route("**/list/", hold)
    page.goto("/list/")
    expect(page.locator("#connection")).to_have_text("Live")
    with page.expect_request("**/list/"):
        ticks.send("job:12")
    page.get_by_label("Name").fill("bert")
    page.wait_for_url("**/list/?q=bert")
    with page.expect_response("**/list/?q=bert"):  # the part is asked for anew, as it is now
        held[0].fulfill(body='<div id="list">of another address</div>', content_type="text/html")
    expect(page.locator("#count")).to_be_visible()
    expect(page.get_by_text("of another address")).to_have_count(0)


def test_the_theme_is_chosen_kept_and_there_before_the_first_paint(page: Page) -> None:
    page.goto("/part/")
    light = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.get_by_role("button", name="Account").click()
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != light
    page.reload(wait_until="commit")
    page.wait_for_function("document.documentElement?.dataset.theme === 'dark'")
    page.get_by_role("button", name="Account").click()
    expect(page.get_by_role("button", name="Dark")).to_have_attribute("aria-pressed", "true")


def test_keys_lead_everywhere_and_rest_while_the_reader_types(page: Page) -> None:
    page.goto("/part/")
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("?gm")
    expect(page.locator("#shortcuts")).to_be_hidden()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.locator("#shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#shortcuts")).to_be_hidden()
    page.keyboard.press("Tab")


def test_focus_returns_to_what_opened_a_dialog(page: Page) -> None:
    page.goto("/styleguide/")
    opener = page.get_by_role("button", name="Roll back to 5").first
    opener.click()
    expect(page.locator("#sg-rollback")).to_be_visible()
    page.keyboard.press("Escape")
    expect(opener).to_be_focused()


def test_a_destructive_verb_waits_until_the_name_is_typed(page: Page) -> None:
    page.goto("/styleguide/")
    page.locator("[data-dialog=sg-plan]").click()
    button = page.get_by_role("button", name="Delete deployment").last
    expect(button).to_be_disabled()
    page.get_by_label("Type fraud-detector to confirm").fill("fraud-detecto")
    expect(button).to_be_disabled()
    page.get_by_label("Type fraud-detector to confirm").fill("fraud-detector")
    expect(button).to_be_enabled()


def test_a_copy_button_copies_the_whole_text(page: Page) -> None:
    page.goto("/styleguide/")
    page.get_by_role("button", name="Copy digest").click()
    expect(page.locator("#announcer")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()").startswith(
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3"
    )


def test_a_log_shows_each_line_once_and_filters(page: Page) -> None:
    page.goto("/styleguide/")
    log = page.locator("#log")
    expect(log.locator(".log-line")).to_have_count(23)
    expect(log.locator(".log-attempt")).to_have_count(2)
    ticks.send("job:12")
    expect(page.locator("#connection")).to_have_text("Live")
    expect(log.locator(".log-line")).to_have_count(23)
    log.get_by_label("Least level").select_option("warning")
    expect(log.locator(".log-line:visible")).to_have_count(2)
    expect(log.locator("[data-log-count]")).to_have_text("2 of 23 lines")
    log.get_by_label("Least level").select_option("")
    log.get_by_label("Filter lines").fill("calibrated 512")
    expect(log.locator(".log-line:visible")).to_have_count(1)


def test_a_log_stops_following_when_the_reader_scrolls_up(page: Page) -> None:
    page.goto("/styleguide/")
    lines = page.locator("#log .log-lines")
    follow = page.locator("#log [data-log-follow]")
    expect(follow).to_have_attribute("aria-pressed", "true")
    lines.evaluate("box => { box.scrollTop = 0; }")
    expect(follow).to_have_attribute("aria-pressed", "false")
    follow.click()
    expect(follow).to_have_attribute("aria-pressed", "true")


def test_a_line_of_a_log_has_an_address_also_when_it_is_no_longer_in_the_page(page: Page) -> None:
    page.goto("/styleguide/")
    line = page.locator("#log .log-line").nth(4)
    line.locator("a").click()
    assert page.url.endswith(f"/styleguide/#{line.get_attribute('id')}")
    expect(page.locator("#log [data-log-follow]")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#log .log-line:target")).to_have_count(1)
    page.goto("/models/")
    page.goto("/styleguide/#log-0")
    page.wait_for_url("**/styleguide/?line=0#log-0")


def test_a_chart_zooms_by_dragging_and_back_undoes_it(page: Page) -> None:
    """In the same document: nothing of the page is loaded anew, so nothing asks twice from then on."""
    page.goto("/styleguide/")
    page.evaluate("history.replaceState({htmx: true}, ''); window.same = true")  # as any live part does
    plot = page.locator("[data-chart=latency] .nsewdrag").first
    expect(plot).to_be_attached()
    box = page.locator("[data-chart=latency] .chart-plot").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 300, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 700, middle, steps=8)
    page.mouse.up()
    page.wait_for_url("**/styleguide/?from=*&to=*")
    with page.expect_request("**/series/**"):
        page.go_back()
    page.wait_for_url("**/styleguide/")
    expect(page.locator("[data-range='15m']")).to_have_attribute("aria-current", "true")
    assert page.evaluate("window.same")


def test_the_cursor_is_shared_and_the_legend_says_its_values(page: Page) -> None:
    page.goto("/styleguide/")
    expect(page.locator("[data-chart=latency] .nsewdrag").first).to_be_attached()
    page.locator("[data-chart=latency] .chart-plot").hover(position={"x": 700, "y": 90})
    for chart in ("latency", "throughput", "queue", "replicas"):
        expect(page.locator(f"[data-chart={chart}] .chart-cursor")).to_be_visible()
    times = page.locator("[data-chart-at]").all_text_contents()
    assert len(set(times)) == 1
    assert times[0]


def test_a_chart_moves_on_a_tick_and_rests_while_paused(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/series/" in request.url else None)
    page.goto("/styleguide/")
    expect(page.locator("#connection")).to_have_text("Live")
    with page.expect_request("**/series/**", timeout=10_000):
        ticks.send("metrics:1")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_url("**/styleguide/?paused*")
    before = len(asked)
    ticks.send("metrics:1")
    page.get_by_role("button", name="View as table").click()
    expect(page.locator("[data-chart=replicas] tbody tr").first).to_be_visible()
    assert len(asked) == before


def test_a_page_can_be_read_without_scripts(browser: Browser, address: str) -> None:
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.goto("/styleguide/")
    expect(page.get_by_role("heading", name="fraud-detector", level=1)).to_be_visible()
    expect(page.locator("#log .log-line")).to_have_count(23)
    expect(page.locator(".copy").first).to_be_hidden()
    expect(page.locator("[data-log-follow]")).to_be_hidden()
    context.close()
