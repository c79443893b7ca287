"""The world that deployments are tested in: a team, its people, a model and a target in memory."""

import pytest

from tests.deployments.world import World, make


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return make(monkeypatch)
