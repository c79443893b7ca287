"""Rows that tests begin with, made through the product's own verbs where one exists."""

import functools
import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.contrib.auth.hashers import make_password

from controlplane.accounts.access import Actor
from controlplane.accounts.models import ApiToken, Membership, Role, Team, User
from controlplane.registry.models import Artifact, Model, Variant, Version

_numbers = itertools.count(1)

SIGNATURE: dict[str, Any] = {
    "inputs": [{"name": "x", "dtype": "FP32", "shape": ["batch", 4]}],
    "outputs": [{"name": "y", "dtype": "FP32", "shape": ["batch", 3]}],
    "batch_axis": 0,
}


def team(name: str = "") -> Team:
    return Team.objects.create(name=name or f"team-{next(_numbers)}")


PASSWORD = "a long pass phrase"  # of every user made here


@functools.cache
def _password_hash() -> str:
    """Once per run: a good hash takes longer than most tests."""
    return make_password(PASSWORD)


def user(name: str = "") -> User:
    return User.objects.create(username=name or f"user-{next(_numbers)}", password=_password_hash())


def member(of: Team, *, role: Role = Role.ENGINEER) -> Actor:
    """A new user in the team, as an actor."""
    person = user()
    Membership.objects.create(team=of, user=person, role=role)
    return Actor(team=of, role=role, user=person, via="page")


def token(actor: Actor) -> str:
    """A Bearer token of the actor's user in the actor's team."""
    assert actor.user is not None
    _, text = ApiToken.objects.issue(
        user=actor.user, team=actor.team, role=actor.role, name="test", expiry=timedelta(days=1)
    )
    return text


def artifact(size_bytes: int = 1_000) -> Artifact:
    """A row whose bytes nobody stored: for lists and access rules only."""
    return Artifact.objects.create(sha256=f"{next(_numbers):064x}", size_bytes=size_bytes)


def model(of: Team, name: str = "") -> Model:
    return Model.objects.create(team=of, name=name or f"model-{next(_numbers)}")


def version(of: Model, *, signature: dict[str, Any] = SIGNATURE) -> Version:
    """A version with its own-bytes variant; its bytes are not stored."""
    number = of.version_count + 1
    bytes_ = artifact()
    made = Version.objects.create(
        model=of,
        number=number,
        source_filename="model.onnx",
        source_sha256=bytes_.sha256,
        source_bytes=bytes_.size_bytes,
        artifact=bytes_,
        signature=signature,
        summary={"format": "onnx", "precision": "fp32", "operators": [], "parameters": 3, "seconds": 0.1},
    )
    Variant.objects.create(version=made, artifact=bytes_, signature=signature)
    Model.objects.filter(pk=of.pk).update(version_count=number)
    of.version_count = number
    return made


def variant(of: Version, *, technique: str = "int8-static", verdict: str = "better") -> Variant:
    parent = of.variants.get(number=0)
    return Variant.objects.create(
        version=of,
        number=of.variants.count(),
        parent=parent,
        artifact=artifact(),
        technique=technique,
        precision="int8",
        signature=of.signature,
        verdict=verdict,
    )


def three_people(of: Team) -> Sequence[Actor]:
    """Owner (engineer), teammate (viewer) and a stranger (engineer of another team)."""
    return member(of), member(of, role=Role.VIEWER), member(team())
