"""A team's cluster for tests of pages, the API and the reconciler: its API is the fake, its nodes are played.

@pytest.fixture
def cluster(monkeypatch) -> Iterator[Cluster]:
    with clusters.running(monkeypatch) as one: yield one
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from django.test import Client

from controlplane.accounts.access import Actor
from controlplane.core import sealing
from deployments import services, targets
from deployments.models import Deployment, Target
from deployments.targets.kubernetes import kinds, opening
from deployments.targets.kubernetes.api import Api
from deployments.targets.kubernetes.kubeconfig import Connection
from tests import factories
from tests.deployments.targets.kubernetes.fake import RunningFake
from tests.deployments.targets.kubernetes.kubelet import Kubelet

NAMESPACE = "ml"


@dataclass(kw_only=True)
class Cluster:
    """`row` is the team's target. `api` speaks to the cluster as its administrator does."""

    fake: RunningFake
    api: Api
    kubelet: Kubelet
    row: Target
    owner: Actor
    viewer: Actor
    stranger: Actor
    deployments: list[Deployment] = field(default_factory=list)

    def deployment(self, name: str = "scorer") -> Deployment:
        row, _ = services.create_deployment(self.owner, name=name, target=self.row)
        self.deployments.append(row)
        return row

    def browser(self, actor: Actor) -> Client:
        client = Client()
        assert actor.user is not None
        client.force_login(actor.user)
        return client


@contextmanager
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Every cluster target of this process is the fake meanwhile: its address is http, which no kubeconfig may name."""
    fake = RunningFake().start()
    connection = fake.connection
    api = Api(connection)
    api.create(kinds.NAMESPACE, {"metadata": {"name": NAMESPACE}}, None)
    kubelet = Kubelet(api)
    kubelet.start()

    def connected(settings: object, secret: bytes) -> Connection:
        return connection

    monkeypatch.setattr(opening, "connection", connected)
    targets.forget()
    owner, viewer, stranger = factories.three_people(factories.team())
    row = Target.objects.create(
        team=owner.team,
        name="production",
        kind="kubernetes",
        settings={"namespace": NAMESPACE, "fetch_url": "https://slipway.example.com"},
        secret=sealing.seal("a kubeconfig"),
    )
    yield Cluster(fake=fake, api=api, kubelet=kubelet, row=row, owner=owner, viewer=viewer, stranger=stranger)
    kubelet.stop()
    fake.stop()
    targets.forget()
