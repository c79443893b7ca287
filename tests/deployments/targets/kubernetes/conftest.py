"""The rooms that the tests of this folder run in."""

from collections.abc import Iterator
from itertools import count

import pytest

from tests.deployments.targets.kubernetes.room import Room

_keys = count(1)


@pytest.fixture
def key() -> str:
    """A deployment that no other test has."""
    return f"k{next(_keys)}"


@pytest.fixture(params=["kubernetes_fake", pytest.param("kubernetes_real", marks=pytest.mark.processes)])
def room(request: pytest.FixtureRequest) -> Iterator[Room]:
    """In memory, and on a real control plane where there is one."""
    found: Room = request.getfixturevalue(request.param)
    yield found
    for status in found.target.observe_all():
        found.target.delete(status.key)
        found.until_gone(status.key)


@pytest.fixture
def fake_room(kubernetes_fake: Room) -> Iterator[Room]:
    """For faults that only a scripted API shows on demand."""
    assert kubernetes_fake.fake is not None
    yield kubernetes_fake
    kubernetes_fake.fake.cluster.scripts.clear()
    for status in kubernetes_fake.target.observe_all():
        kubernetes_fake.target.delete(status.key)
        kubernetes_fake.until_gone(status.key)
