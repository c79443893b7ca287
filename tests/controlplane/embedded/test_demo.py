"""The demo's story goes on from whatever an earlier run of it left."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from controlplane.embedded.demo import client, content
from controlplane.embedded.demo.client import Api, Refused
from controlplane.embedded.demo.content import Demo
from controlplane.registry import services as registry
from controlplane.registry.gate import Gate
from controlplane.registry.models import Alias
from deployments.models import Rollout
from tests import factories
from tests.deployments.world import World, make

pytestmark = pytest.mark.django_db


@dataclass(frozen=True, kw_only=True)
class Inside(Api):
    """The same calls without a network. The world moves a step whenever a rollout is looked at."""

    world: World
    before_posts: list[Callable[[], object]] = field(default_factory=list)

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        if method == "POST" and self.before_posts:
            self.before_posts.pop()()
        if method == "GET" and "/rollouts/" in path:
            self.world.step()
        sent = {"Authorization": f"Bearer {self.token}"}
        sent |= {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        kind = content_type or "application/json"
        answer = Client().generic(method, f"/api/v1/{path}", body or b"", content_type=kind, headers=sent)
        if answer.status_code >= 400:
            raise Refused(answer.json())
        return json.loads(answer.content)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(content, "DEPLOYMENT", "scorer")
    monkeypatch.setattr(content, "MODEL", "scorer")
    monkeypatch.setattr(client, "POLL_S", 0)
    return make(monkeypatch)


def roll_out(world: World, *before_posts: Callable[[], object]) -> list[str]:
    """What the demo says while it rolls the original out."""
    said: list[str] = []
    token = factories.token(world.owner)
    api = Inside(url="http://inside/", token=token, world=world, before_posts=list(before_posts))
    Demo(api=api, project=Path("/nowhere"), say=said.append)._roll_out(variant=0)
    return said


def test_a_rollout_that_an_earlier_run_left_is_waited_for(world: World) -> None:
    left = world.start(world.revision())
    assert roll_out(world) == []
    left.refresh_from_db()
    assert left.state == "succeeded"
    assert Rollout.objects.count() == 1


def test_a_plan_that_moved_before_it_was_applied_is_read_again(world: World) -> None:
    world.serve()
    wanted = world.revision()
    (said,) = roll_out(world, lambda: world.serve(replicas=2))
    assert "Endpoint: " in said
    assert world.deployment.live_revision == wanted


def test_a_plan_that_moves_each_time_ends_the_demo(world: World) -> None:
    world.serve()
    world.revision()
    with pytest.raises(Refused, match="What runs has moved"):
        roll_out(world, lambda: world.serve(replicas=2), lambda: world.serve(replicas=3))


def test_a_gate_that_somebody_narrowed_is_respected(world: World) -> None:
    model = factories.model(world.owner.team, "scorer")
    better = factories.variant(factories.version(model))
    said: list[str] = []
    api = Inside(url="http://inside/", token=factories.token(world.owner), world=world)
    demo = Demo(api=api, project=Path("/nowhere"), say=said.append)
    found = {"variant": better.number, "technique": better.technique}
    registry.set_gate(world.owner, model, Gate(max_size_mib=0.0))
    assert demo._promote(found) is False
    assert said[0].startswith("“champion” stays where it is: scorer v1 int8-static has not passed its gate.")
    registry.set_gate(world.owner, model, Gate())
    assert demo._promote(found) is True
    assert Alias.objects.get().variant == better
