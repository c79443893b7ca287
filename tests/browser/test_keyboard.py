"""Everything that a mouse can do is within reach of the keys, and the focus is always seen and never lost."""

import os
import re

from playwright.sync_api import Locator, Page, expect

from tests.browser.stock import Stock, tiny_model

# Rows and cards draw the ring of the link or radio within them.
FOCUSED = """() => {
    const node = document.activeElement;
    const ring = (style) => (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0)
        || style.boxShadow !== "none";
    const around = [node, node.closest("label"), node.closest("tr")].filter(Boolean);
    return {
        words: (node.labels?.[0] ?? node).textContent.trim().replace(/\\s+/g, " ").slice(0, 60),
        seen: node.matches(":focus-visible") && around.some((one) =>
            ring(getComputedStyle(one)) || ring(getComputedStyle(one, "::after"))),
        inside: node !== document.body,
    };
}"""
MANY = 60
PATIENCE_MS = 60_000
PLAN = re.compile(r"/revisions/(\d+)/plan/(#.*)?$")


def tab_to(page: Page, target: Locator) -> None:
    """Presses Tab until the target has the focus. Whatever is passed on the way shows that it has it."""
    for _ in range(MANY):
        page.keyboard.press("Tab")
        here = page.evaluate(FOCUSED)
        if here["inside"]:
            assert here["seen"], f"{page.url}: nobody sees that this has the focus: {here['words']}"
        if target.evaluate("node => node === document.activeElement"):
            return
    raise AssertionError(f"{page.url}: {target} was not reached with {MANY} tabs")


def test_slash_searches_and_finds(page: Page, stock: Stock) -> None:
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Search")).to_be_focused()
    page.keyboard.type("shop-ranker g m ?")
    expect(page.locator("dialog[open]")).to_have_count(0)
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("shop-ranker")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search/?q=shop-ranker")
    expect(page.locator("main").get_by_role("link", name="shop-ranker").first).to_be_visible()


def test_question_mark_lists_the_keys_and_gives_the_focus_back(page: Page) -> None:
    opener = page.get_by_role("link", name="Jobs", exact=True).first
    opener.focus()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_be_visible()
    for _ in range(6):
        page.keyboard.press("Tab")
        outside = "node => document.activeElement !== document.body && !node.contains(document.activeElement)"
        assert not dialog.evaluate(outside)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(opener).to_be_focused()


def test_g_and_a_letter_go_to_each_place(page: Page) -> None:
    for key, path in {
        "m": "models",
        "j": "jobs",
        "d": "deployments",
        "c": "targets",
        "w": "workers",
        "a": "activity",
    }.items():
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(f"**/{path}/")
    page.keyboard.press("g")
    page.keyboard.press("o")
    page.wait_for_url(lambda url: url.count("/") == 3)


def test_the_first_tab_skips_to_the_content(page: Page) -> None:
    page.goto("/models/")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#page")).to_be_focused()


def test_a_model_is_registered_with_keys_alone(page: Page) -> None:
    page.goto("/models/")
    tab_to(page, page.get_by_role("link", name="Register a model").first)
    page.keyboard.press("Enter")
    page.wait_for_url("**/models/new/")
    tab_to(page, page.get_by_label("Name"))
    name = f"typed-only-{os.getpid()}"
    page.keyboard.type(name)
    chooser = page.get_by_label("First version")
    tab_to(page, chooser)
    with page.expect_file_chooser() as asked:
        page.keyboard.press("Space")
    asked.value.set_files(
        {"name": "m.onnx", "mimeType": "application/octet-stream", "buffer": tiny_model(seed=3)}
    )
    tab_to(page, page.get_by_role("button", name="Register model"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)


def test_a_refused_form_takes_the_focus_to_what_was_wrong(page: Page) -> None:
    page.goto("/models/new/")
    page.get_by_label("Name").fill("Not A Name")
    page.get_by_label("First version").set_input_files(
        {"name": "m.onnx", "mimeType": "application/octet-stream", "buffer": tiny_model(seed=4)}
    )
    page.get_by_role("button", name="Register model").press("Enter")
    expect(page.get_by_role("alert").first).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Name")).to_be_focused()


def test_a_technique_is_chosen_and_a_plan_reached_with_keys_alone(page: Page, stock: Stock) -> None:
    page.goto(stock.version)
    chosen = page.locator("input[name=technique]:checked")
    chosen.wait_for()
    before = chosen.input_value()
    tab_to(page, chosen)  # one stop for the whole group
    page.keyboard.press("ArrowUp")
    expect(chosen).not_to_have_value(before)
    expect(chosen).to_be_focused()
    page.goto(stock.deployment + "revisions/")
    tab_to(page, page.locator("main").get_by_role("link", name="Revision 1", exact=True))
    page.keyboard.press("Enter")
    page.wait_for_url("**/revisions/1/plan/")


def test_the_line_is_walked_with_keys_alone(page: Page, stock: Stock) -> None:
    """From a job over the plan of a new revision to its rollout, and back to the one before."""
    page.goto(stock.version)
    tab_to(page, page.locator("input[name=technique]:checked"))
    tab_to(page, page.get_by_role("button", name="Start the job"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Job")
    expect(page.locator("#job-state")).to_contain_text("Succeeded", timeout=PATIENCE_MS)

    page.goto(stock.deployment)
    tab_to(page, page.get_by_role("link", name="New revision"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/settings/#revision")
    tab_to(page, page.get_by_label("Largest batch"))
    page.keyboard.press("ArrowUp")
    tab_to(page, page.get_by_role("button", name="Add revision and see the plan"))
    page.keyboard.press("Enter")
    number = _confirm(page, "Roll out revision")

    page.goto(f"{stock.deployment}revisions/")
    tab_to(page, page.get_by_role("link", name=f"Roll back to {number - 1}", exact=True))
    page.keyboard.press("Enter")
    assert _confirm(page, "Roll back to") == number - 1


def _confirm(page: Page, verb: str) -> int:
    """Reads the plan, confirms it by its button and waits until it has happened. The number of the revision."""
    page.wait_for_url(PLAN)
    found = PLAN.search(page.url)
    assert found is not None
    tab_to(page, page.get_by_role("button", name=f"{verb} {found[1]}", exact=True))
    page.keyboard.press("Enter")
    expect(page.locator("#rollout")).to_contain_text("Succeeded", timeout=PATIENCE_MS)
    return int(found[1])


def test_the_dialog_of_an_alias_traps_the_focus_and_gives_it_back(page: Page, stock: Stock) -> None:
    page.goto(stock.model)
    opener = page.get_by_role("link", name="Remove champion")
    tab_to(page, opener)
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Remove this alias?")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(opener).to_be_focused()


def test_the_focus_stays_while_the_page_refreshes_itself(page: Page, stock: Stock) -> None:
    """The deployment is under load: its tiles and tables come anew every two seconds."""
    page.goto(stock.deployment)
    copy = page.get_by_role("button", name="Copy address")
    copy.focus()
    for _ in range(2):
        with page.expect_response(lambda answer: answer.request.headers.get("hx-request") == "true"):
            pass
    expect(copy).to_be_focused()
