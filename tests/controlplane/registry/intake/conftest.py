"""One look in the real sandbox, as the services do it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake import Bounds, inspect_dataset, inspected
from tests.controlplane.registry.intake.models import write

GIB = 1024**3


@pytest.fixture
def bounds(tmp_path: Path) -> Bounds:
    return Bounds(memory_bytes=3 * GIB, wall_s=60, scratch=tmp_path / "scratch")


@pytest.fixture
def look(tmp_path: Path, bounds: Bounds) -> Callable[..., dict[str, Any]]:
    """Looks at bytes; returns what was found, with the bytes of the file to keep."""

    def run(body: bytes, **changes: Any) -> dict[str, Any]:
        path = write(tmp_path, body)
        with inspected(path, filename="upload.onnx", bounds=changes.get("bounds", bounds)) as found:
            kept = found.artifact_path.read_bytes()
            answer = {"signature": found.signature, "summary": found.summary, "repacked": found.repacked}
        assert not list(bounds.scratch.iterdir())
        return answer | {"kept": kept}

    return run


@pytest.fixture
def refused(look: Callable[..., Any], bounds: Bounds) -> Callable[..., Unprocessable]:
    """Looks at bytes that must be refused; returns the error. Nothing of the look may be left."""

    def run(body: bytes, **changes: Any) -> Unprocessable:
        with pytest.raises(Unprocessable) as error:
            look(body, **changes)
        assert not list(bounds.scratch.iterdir())
        assert error.value.status == 422
        assert error.value.title.endswith(".")
        assert "/tmp" not in error.value.detail
        assert error.value.detail.isprintable()
        return error.value

    return run


@pytest.fixture
def look_at_dataset(tmp_path: Path, bounds: Bounds) -> Callable[..., Any]:
    def run(body: bytes, signature: dict[str, Any]) -> Any:
        try:
            return inspect_dataset(write(tmp_path, body), signature=signature, bounds=bounds)
        finally:
            assert not list(bounds.scratch.iterdir())

    return run
