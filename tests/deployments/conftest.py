"""The world that deployments are tested in: a team, its people, a model and a target in memory; and clusters."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.deployments.world import World, make

if TYPE_CHECKING:
    from tests.deployments.targets.kubernetes.control_plane import ControlPlane
    from tests.deployments.targets.kubernetes.room import Room


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return make(monkeypatch)


@pytest.fixture(scope="module")
def kubernetes_fake() -> Iterator["Room"]:
    """A cluster in memory. Of a file, because its kubelet would go on looking beside all other tests."""
    from deployments.targets.kubernetes.api import Api
    from tests.deployments.targets.kubernetes.fake import RunningFake
    from tests.deployments.targets.kubernetes.room import Room

    fake = RunningFake().start()
    room = Room(Api(fake.connection), namespace="ml", fake=fake).start()
    yield room
    room.stop()
    fake.stop()


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator["ControlPlane"]:
    """A real one, where KUBEBUILDER_ASSETS names it."""
    from tests.deployments.targets.kubernetes.control_plane import ControlPlane, why_not

    if reason := why_not():
        pytest.skip(reason)
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"))
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture(scope="session")
def kubernetes_real(control_plane: "ControlPlane") -> Iterator["Room"]:
    """A namespace of it."""
    from deployments.targets.kubernetes import kubeconfig
    from deployments.targets.kubernetes.api import Api
    from tests.deployments.targets.kubernetes.room import Room

    room = Room(Api(kubeconfig.read(control_plane.kubeconfig())), namespace="ml").start()
    yield room
    room.stop()
