"""Who can be asked for by an autoscaler elsewhere, and under which labels."""

from typing import Any

import pytest

from controlplane.accounts.models import Team
from deployments.autoscaling.external.labels import labels_of
from deployments.models import Deployment, Target
from deployments.telemetry.sheet import SignalLabels


def deployment(kind: str, settings: dict[str, Any] | None) -> Deployment:
    team = Team(name="search")
    target = Target(team=team, name="there", kind=kind)
    if settings is not None:
        target.settings = settings  # type: ignore[attr-defined, unused-ignore]
    return Deployment(pk=12, team=team, name="bert", target=target)


def test_a_deployment_in_a_namespace_has_its_name_its_key_and_its_team() -> None:
    assert labels_of(deployment("kubernetes", {"namespace": "models"})) == SignalLabels(
        namespace="models", labels={"deployment": "bert", "key": "d12", "team": "search"}
    )


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_what_slipway_scales_itself_is_nobody_else_s_to_ask_for(kind: str) -> None:
    assert labels_of(deployment(kind, {"namespace": "models"})) is None


@pytest.mark.parametrize("settings", [None, {}, {"namespace": ""}])
def test_without_a_namespace_there_is_nowhere_to_ask(settings: dict[str, Any] | None) -> None:
    assert labels_of(deployment("kubernetes", settings)) is None
