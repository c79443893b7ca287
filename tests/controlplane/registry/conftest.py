"""Three people, a small model, and a storage of the test's own."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from controlplane.accounts.access import Actor
from controlplane.registry import services
from controlplane.registry.models import Model, Version
from tests import factories
from tests.controlplane.registry import people
from tests.controlplane.registry.intake import models
from tests.controlplane.registry.people import Person


@pytest.fixture
def three(db: None) -> tuple[Person, Person, Person]:
    return people.three()


@pytest.fixture
def storage_of_its_own(tmp_path: Path, settings) -> Path:  # type: ignore[no-untyped-def]
    """Objects and temporary files are this test's alone."""
    root = tmp_path / "artifacts"
    forms = tmp_path / "forms"
    forms.mkdir()
    settings.STORAGES = settings.STORAGES | {
        "artifacts": settings.STORAGES["artifacts"] | {"OPTIONS": {"location": root}}
    }
    settings.FILE_UPLOAD_TEMP_DIR = forms
    return root


@pytest.fixture
def onnx() -> Callable[..., bytes]:
    """A small model; each `seed` gives other bytes."""

    def make(seed: int = 0) -> bytes:
        weights = np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32)
        return models.mlp(weights=weights).SerializeToString()

    return make


@pytest.fixture
def npz() -> Callable[..., bytes]:
    def make(*, items: int = 16, width: int = 4, labels: bool = True) -> bytes:
        file = io.BytesIO()
        arrays = {"x": np.zeros((items, width), np.float32)}
        np.savez(file, **arrays, **({"labels": np.zeros(items, np.int64)} if labels else {}))
        return file.getvalue()

    return make


@pytest.fixture
def registered(onnx: Callable[..., bytes]) -> Callable[..., tuple[Model, Version]]:
    """A model with a version whose bytes are really stored."""

    def make(actor: Actor, *, body: bytes | None = None) -> tuple[Model, Version]:
        model = factories.model(actor.team)
        version, _ = services.upload_version(actor, model, chunks=[body or onnx()], filename="model.onnx")
        return model, version

    return make
