"""Three people and a version to work on."""

from collections.abc import Callable

import pytest

from controlplane.accounts.access import Actor
from controlplane.registry.models import Dataset, Version
from tests import factories
from tests.controlplane.registry import people
from tests.controlplane.registry.people import Person

SUMMARY = {
    "nodes": 2,
    "operators": [["MatMul", 1], ["Relu", 1]],
    "opset": {"ai.onnx": 18},
    "precision": "fp32",
}


@pytest.fixture
def three(db: None) -> tuple[Person, Person, Person]:
    return people.three()


@pytest.fixture
def version_of() -> Callable[[Actor], Version]:
    """A version that has weights to quantize; its bytes are not stored."""

    def make(actor: Actor) -> Version:
        version = factories.version(factories.model(actor.team))
        version.summary = SUMMARY
        version.save()
        return version

    return make


@pytest.fixture
def dataset_of() -> Callable[..., Dataset]:
    def make(version: Version, *, name: str = "held", role: str = "evaluation") -> Dataset:
        return Dataset.objects.create(
            model=version.model,
            name=name,
            role=role,
            artifact=factories.artifact(),
            items=100,
            has_labels=True,
        )

    return make
