"""Stages and what stands on them. Each file gets its own, so that files do not depend on each other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import techniques
from tests.faults.house import House, house
from tests.faults.stage import Stage, stage
from tests.faults.waiting import until
from tests.faults.workshop import Workshop


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="module")
def stands(django_db_blocker: Any) -> Iterator[Stage]:
    """Servers and an empty database of the file's own."""
    with stage(django_db_blocker) as found:
        yield found


@pytest.fixture(scope="module")
def workshop(stands: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with techniques.offered():
        yield Workshop.open(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The whole product with an endpoint on two replicas."""
    with house() as stands:
        stands.deploy(tmp_path_factory.mktemp("house"), replicas=2)
        yield stands


@pytest.fixture
def lived_in(built: House) -> House:
    """Running, whatever the test before did to it, with both replicas ready."""
    built.running()
    until(lambda: len(built.ready_replicas()) == 2, within_s=30, what="two replicas ready")
    return built
