"""The real product in a real Chromium: `manage.py up` on ports of its own, pages with the policy on.

Every test fails on a console error or a blocked resource, so a page that only looks right does not pass.
Without a Chromium the tests are reported as not run.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from controlplane.embedded.generated import generated
from controlplane.embedded.home import Home
from controlplane.embedded.runtime import Up, running

ROOT = Path(settings.BASE_DIR)
CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
READY_WITHIN_S = 90
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="not run: no Chromium on PATH (Debian: chromium)"))


class Product:
    """A running `up` of the tests' own."""

    def __init__(self, home: Path, up: Up) -> None:
        self.home = home
        self.up = up

    @property
    def url(self) -> str:
        return self.up.url.rstrip("/")

    @property
    def password(self) -> str:
        return generated(Home(root=self.home)).admin_password

    def manage(self, *arguments: str) -> str:
        """Runs a management command against it and returns what it printed."""
        environment = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
        environment |= {"SLIPWAY_HOME": str(self.home)}
        environment.pop("SLIPWAY_SECRET_KEY", None)
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout


@pytest.fixture(scope="session")
def product() -> Iterator[Product]:
    root = Path(tempfile.mkdtemp(prefix="slipway-browser-"))
    home = root / "home"
    home.mkdir()
    if (ROOT / ".slipway" / "vendor").is_dir():
        (home / "vendor").symlink_to(ROOT / ".slipway" / "vendor")
    mine = {"SLIPWAY_HOME": str(home), "SLIPWAY_ADDRESS": "127.0.0.1:0", "SLIPWAY_DATA_PORT": "0"}
    theirs = {"DATABASE_URL", "REDIS_URL", "SLIPWAY_SECRET_KEY", "SLIPWAY_NODE_URL", "SLIPWAY_NODE_TOKEN"}
    environment = {name: value for name, value in os.environ.items() if name not in theirs} | mine
    with (root / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "up"], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield Product(home, _ready(process, home, root / "up.log"))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        shutil.rmtree(root, ignore_errors=True)


def _ready(process: subprocess.Popen[bytes], home: Path, log: Path) -> Up:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        up = running(home)
        if up is not None and up.ready:
            return up
        time.sleep(0.2)
    raise AssertionError(f"up did not get ready:\n{log.read_text()[-4000:]}")


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
    found = page.evaluate("tags => axe.run(document, {runOnly: tags}).then(result => result.violations)", tags)
    return [
        {"id": one["id"], "nodes": [node["html"][:200] for node in one["nodes"][:3]], "help": one["help"]}
        for one in found
    ]
