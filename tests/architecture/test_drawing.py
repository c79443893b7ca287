"""docs/architecture.md draws exactly the layers that the linter holds."""

import configparser
import re

import pytest
from django.conf import settings

DRAWING = (settings.BASE_DIR / "docs" / "architecture.md").read_text()


def linted(contract: str) -> list[set[str]]:
    parser = configparser.ConfigParser()
    parser.read(settings.BASE_DIR / ".importlinter")
    rows = parser[f"importlinter:contract:{contract}"]["layers"].split("\n")
    return [set(re.findall(r"[a-z_.]+", row)) for row in rows if row.strip()]


def drawn(contract: str) -> list[set[str]]:
    block = re.search(rf"<!-- layers: {contract} -->\n```\n(.*?)```", DRAWING, re.DOTALL)
    assert block is not None
    return [set(row.split()) for row in block.group(1).splitlines()]


@pytest.mark.parametrize("contract", ["rooms", "optimizer", "deployments"])
def test_the_drawing_equals_the_linted_layers(contract: str) -> None:
    assert drawn(contract) == linted(contract)
