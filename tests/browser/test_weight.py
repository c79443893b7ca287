"""The first page costs little: what goes over the wire, as the edge sends it, without the charts' own library."""

import pytest

from tests.browser.conftest import Visit, open_place
from tests.browser.stock import Stock

MOST_BYTES = 150_000
SENT = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .filter((one) => !one.name.includes("plotly"))
    .reduce((sum, one) => sum + one.transferSize, 0)"""


@pytest.mark.parametrize("place", ["overview", "models", "job", "deployment"])
def test_a_first_visit_stays_within_its_budget(visit: Visit, stock: Stock, place: str) -> None:
    page = visit("admin")
    open_place(page, place, stock)
    page.wait_for_load_state("load")
    assert 10_000 < page.evaluate(SENT) < MOST_BYTES
