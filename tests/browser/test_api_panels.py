"""What a page says about the API works when it is pasted into a shell, as it stands there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import open_place
from tests.browser.places import FULL
from tests.browser.stock import Api, Stock, tiny_model, tiny_set
from tests.product import Product

NAME = f"pasted-{os.getpid()}"
WITHIN_S = 60


@pytest.fixture(scope="module")
def api(product: Product) -> Api:
    return Api(product)


def pasted(text: str, api: Api, *, folder: Path) -> str:
    """What the snippet answers. A refusal fails, for curl too."""
    argv = ["bash", "-c", text.replace("curl ", "curl -sS --fail-with-body ")]
    if text.startswith("import "):
        argv = [sys.executable, "-c", text]
    elif shutil.which("curl") is None:
        pytest.skip("needs curl on PATH, which .ci/run installs")
    environment = os.environ | {"SLIPWAY_TOKEN": api.token}
    done = subprocess.run(
        argv, env=environment, cwd=folder, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


def snippets(page: Page) -> list[str]:
    return page.locator(".api-panel pre code, .snippet pre code").all_text_contents()


def reads(text: str) -> bool:
    """A call that changes nothing."""
    if text.startswith("import json, os"):
        return "method='GET'" in text
    return text.startswith("curl ") and " -X " not in text and " -T " not in text


def test_what_a_page_reads_can_be_read_by_its_lines(
    page: Page, stock: Stock, api: Api, tmp_path: Path
) -> None:
    tried = set()
    for place in FULL:
        open_place(page, place, stock)
        for text in filter(reads, snippets(page)):
            if text not in tried:
                pasted(text, api, folder=tmp_path)
                tried.add(text)
    assert len(tried) > 20


def test_a_version_and_a_data_set_are_sent_by_their_lines(page: Page, api: Api, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(tiny_model(seed=5))
    (tmp_path / "items.npz").write_bytes(tiny_set(seed=5))
    api("POST", "models/", {"name": NAME})
    for path in (f"/models/{NAME}/", f"/models/{NAME}/versions/new/"):
        page.goto(path)
        sending = [text for text in snippets(page) if "model.onnx" in text]
        assert len(sending) >= 2, "curl and Python"
        for text in sending:
            pasted(text, api, folder=tmp_path)
    (version,) = api("GET", f"models/{NAME}/versions/")["items"]
    assert version["filename"] == "model.onnx"

    page.goto(f"/models/{NAME}/datasets/new/")
    sending = [text for text in snippets(page) if "open('items.npz'" in text or "-T items.npz" in text]
    assert len(sending) == 2
    for text in sending:
        pasted(text, api, folder=tmp_path)
        (dataset,) = api("GET", f"models/{NAME}/datasets/")["items"]
        assert dataset["role"] == "evaluation"
        api("DELETE", f"models/{NAME}/datasets/{dataset['name']}/")
