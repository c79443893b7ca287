"""The whole line as a person walks it: register, optimize, see a rejection, roll out, watch, go back."""

import os
import re

from playwright.sync_api import FilePayload, Page, expect

from tests.browser.conftest import Visit, no_reload
from tests.browser.stock import Api, Stock, tiny_model, tiny_set, traffic
from tests.browser.test_screenshots import LATENCIES
from tests.product import Product

NAME = f"parcel-sorter-{os.getpid()}"
LONG_MS = 60_000
# No gain is claimed, in the words of whichever rule spoke first; how noisy the machine is decides which.
REJECTION = re.compile("Inaccurate|Faster but inaccurate|Not faster|Inconclusive")
ROLLOUT = re.compile(r"/rollouts/\d+/(#.*)?$")


def file(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def test_the_whole_line(page: Page, product: Product) -> None:
    _register(page)
    _upload_a_set(page)
    _optimize_and_be_rejected(page)
    _roll_out(page)
    _watch_a_chart_move(page, product)
    _roll_out_another_and_go_back(page)


def _register(page: Page) -> None:
    page.get_by_role("link", name="Models", exact=True).first.click()
    page.get_by_role("link", name="Register a model").first.click()
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("First version").set_input_files(file("model.onnx", b"\x7fELF is no model"))
    page.get_by_role("button", name="Register model").click()
    field = page.get_by_label("First version")
    expect(page.locator(f"#{field.get_attribute('id')}_error")).to_contain_text("ONNX")
    expect(page.get_by_label("Name")).to_have_value(NAME)

    field.set_input_files(file("sorter.onnx", tiny_model(seed=2, fragile=True)))
    page.get_by_role("button", name="Register model").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(NAME)
    expect(page.get_by_text("FP32").first).to_be_visible()


def _upload_a_set(page: Page) -> None:
    page.goto(f"/models/{NAME}/")
    page.get_by_role("link", name="Upload a data set").first.click()
    page.get_by_label("Name").fill("holdout")
    page.get_by_label("Data file").set_input_files(file("holdout.npz", tiny_set(seed=2)))
    page.get_by_role("button", name="Upload data set").click()
    expect(page.get_by_role("row", name="holdout")).to_contain_text("400")


def _optimize_and_be_rejected(page: Page) -> None:
    """INT8 costs this model its accuracy, and the open page says so by itself."""
    page.goto(f"/models/{NAME}/versions/1/")
    page.get_by_role("radio", name="INT8, dynamic").check()
    page.get_by_label("Compare answers on").select_option(
        label=_option(page, "Compare answers on", "holdout")
    )
    page.get_by_role("button", name="Start the job").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Job")
    with no_reload(page):
        verdict = page.locator("#job-verdict .verdict")
        expect(verdict).to_contain_text(REJECTION, timeout=LONG_MS)
        expect(page.locator("#job-state")).to_contain_text("Succeeded")
        expect(page.get_by_role("link", name="Open the variant")).to_be_visible()
        expect(verdict).to_contain_text("points lost")
        expect(page.locator("#job-report table").first).to_be_visible()
    lines = page.locator("#log .log-line")
    expect(lines.nth(2)).to_be_visible()
    said = lines.last.text_content()
    page.reload()
    expect(page.locator("#log .log-line").last).to_have_text(str(said))
    page.get_by_role("link", name="Open the variant").click()
    expect(page.locator(".verdict")).to_contain_text(REJECTION)


def _roll_out(page: Page) -> None:
    page.get_by_role("link", name="Deploy this variant").click()
    page.get_by_label("Name", exact=True).fill(NAME)
    page.get_by_role("button", name="Create and see the plan").click()
    plan = page.locator("section", has=page.get_by_role("heading", name="Roll out revision 1"))
    expect(plan).to_contain_text(f"{NAME}")
    expect(plan).to_contain_text("added")
    _go(page, "Roll out revision 1")


def _go(page: Page, verb: str) -> None:
    """Confirms a plan and waits, without a reload, until the deployment is healthy at the new revision."""
    page.get_by_role("button", name=verb).click()
    page.wait_for_url(ROLLOUT)
    with no_reload(page):
        expect(page.locator("#health")).to_contain_text("Healthy", timeout=LONG_MS)
        expect(page.locator("#rollout")).to_contain_text("Succeeded", timeout=LONG_MS)


def _watch_a_chart_move(page: Page, product: Product) -> None:
    """The latency chart grows by what the endpoint was just asked, without a reload."""
    page.goto(f"/deployments/{NAME}/?range=5m")
    page.locator("[data-chart=latency] .main-svg").first.wait_for()
    before = page.evaluate(LATENCIES)
    endpoint = f"{Api(product)('GET', f'deployments/{NAME}/')['address']}/v2/models/{NAME}/infer"
    with no_reload(page), traffic(endpoint):
        while page.evaluate(LATENCIES) < before + 2:
            with page.expect_response(lambda answer: "/series/" in answer.url, timeout=LONG_MS):
                pass
        expect(page.locator(".tiles")).to_contain_text("ms")


def _roll_out_another_and_go_back(page: Page) -> None:
    page.get_by_role("link", name="New revision").click()
    page.get_by_label("Largest batch").fill("4")
    page.get_by_role("button", name="Add revision and see the plan").click()
    plan = page.locator("section", has=page.get_by_role("heading", name="Roll out revision 2"))
    expect(plan).to_contain_text("max_batch_size")
    expect(plan).to_contain_text("8")
    expect(plan).to_contain_text("4")
    _go(page, "Roll out revision 2")

    page.goto(f"/deployments/{NAME}/revisions/")
    page.get_by_role("link", name="Roll back").first.click()
    expect(page.get_by_text("What a rollback does not restore")).to_be_visible()
    _go(page, "Roll back to 1")
    page.goto(f"/deployments/{NAME}/")
    expect(page.locator("#facts")).to_contain_text("Revision 1")


def _option(page: Page, label: str, part: str) -> str:
    options = page.get_by_label(label).locator("option", has_text=part)
    return str(options.first.text_content()).strip()


def test_a_job_is_cancelled_from_its_page(page: Page, stock: Stock) -> None:
    page.goto(stock.version)
    page.get_by_role("radio", name="INT8, dynamic").check()
    page.get_by_role("button", name="Start the job").click()
    # A queued job is cancelled at once; one that runs loses its work, so the page asks.
    page.locator("#job-actions").get_by_text("Cancel the job").click()
    sure = page.get_by_role("dialog", name="Cancel this job?").get_by_role("button", name="Cancel the job")
    expect(sure.or_(page.locator("#job-state", has_text="Cancel"))).to_be_visible()
    if sure.is_visible():
        sure.click()
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
