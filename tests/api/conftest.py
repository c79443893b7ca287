"""The world that every test of the API's contract asks about."""

from collections.abc import Iterator

import pytest

from deployments import targets
from tests.api.world import World, build


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-budgets",
        action="store_true",
        help="write tests/api/query_budgets.json instead of checking it",
    )


@pytest.fixture
def world(db: None) -> Iterator[World]:
    yield build()
    targets.TABLE._loaded.pop("memory", None)
    targets.load.cache_clear()
