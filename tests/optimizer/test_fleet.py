"""Pages of workers are told of what no worker can say: that it fell silent."""

import pytest

from optimizer import dispatch
from tests.optimizer import jobs

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(("age_s", "told"), [(0, False), (14, False), (16, True), (40, False), (61, True)])
def test_open_pages_are_told_when_a_worker_passes_a_bound_of_its_state(age_s: float, told: bool) -> None:
    jobs.worker(age_s=age_s)
    assert dispatch.tell_of_silent_workers() is told
