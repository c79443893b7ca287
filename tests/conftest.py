"""How `make test` shares the suite out: what is dear to set up is set up once, and what takes long begins first.

A file stays on one worker (`--dist loadgroup`), and all of the browser's files share one running product.
Property tests have no deadlines: on a shared machine those would time the neighbours.
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])

HERE = Path(__file__).parent
LONG = ("browser", "faults")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        room, *_ = item.path.relative_to(HERE).parts
        item.add_marker(
            pytest.mark.xdist_group(room if room == "browser" else str(item.path.relative_to(HERE)))
        )
    items.sort(key=lambda item: item.path.relative_to(HERE).parts[0] not in LONG)
