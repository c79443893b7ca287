"""The world that every test of the API's contract asks about."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from controlplane.accounts.models import ApiToken
from deployments import targets
from deployments.targets.kubernetes import opening
from optimizer.models import Worker
from tests.api.world import THEIRS, World, build
from tests.deployments.targets.kubernetes.fake import RunningFake


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-budgets",
        action="store_true",
        help="write tests/api/query_budgets.json instead of checking it",
    )


@pytest.fixture(scope="session")
def cluster() -> Iterator[RunningFake]:
    """What every kubeconfig of this folder leads to."""
    running = RunningFake().start()
    running.call(lambda: running.cluster.put("namespaces", {"metadata": {"name": "risk"}, "status": {}}))
    for namespace in ("risk", "ml"):
        running.call(partial(running.cluster.put, "deployments", _of_others(namespace)))
    yield running
    running.stop()


def _of_others(namespace: str) -> dict[str, Any]:
    """What can be imported, and what `elsewhere` was."""
    pod = {"metadata": {"labels": {"app": "theirs"}}, "spec": {"containers": [{"name": "a", "image": "b:1"}]}}
    return {
        "metadata": {"name": "theirs", "namespace": namespace, "uid": THEIRS},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "theirs"}}, "template": pod},
    }


@pytest.fixture(scope="module")
def built(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    """Made once for a file, inside a transaction that each test's own lies in."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield build()
        transaction.set_rollback(True)


@pytest.fixture
def world(
    built: World, db: None, settings: Any, cluster: RunningFake, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, torchscript=True)
    monkeypatch.setattr(opening, "connection", lambda settings, secret: cluster.connection)
    world = deepcopy(built)
    targets.forget()
    targets.TABLE._loaded["memory"] = lambda settings, secret: world.target
    # As they were when the file's first test began: read without a write, and heard of.
    Worker.objects.update(heartbeat_at=timezone.now())
    ApiToken.objects.filter(last_used_at__isnull=False).update(last_used_at=timezone.now())
    yield world
    targets.TABLE._loaded.pop("memory", None)
    targets.forget()
