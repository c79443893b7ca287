"""One look in the real sandbox, as the services do it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake import Bounds, inspected, inspected_dataset, model_child
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
def refused_here(tmp_path: Path) -> Callable[[bytes], Unprocessable]:
    """As `refused`, in this process: for readers that are our own code, of which many cases are tried."""

    def run(body: bytes) -> Unprocessable:
        spec = {"path": str(write(tmp_path, body)), "scratch": str(tmp_path), "total_bytes": GIB}
        with pytest.raises(Unprocessable) as error:
            model_child.inspect(spec, lambda message: None)
        assert error.value.title.endswith(".")
        assert "/tmp" not in error.value.detail
        assert error.value.detail.isprintable()
        return error.value

    return run


@pytest.fixture
def kept() -> list[bytes]:
    """What is kept of the data sets that were looked at."""
    return []


@pytest.fixture
def look_at_dataset(tmp_path: Path, bounds: Bounds, kept: list[bytes]) -> Callable[..., Any]:
    def run(body: bytes, signature: dict[str, Any], **more: Any) -> Any:
        try:
            path = write(tmp_path, body)
            with inspected_dataset(path, signature=signature, bounds=bounds, **more) as found:
                kept.append(found.artifact_path.read_bytes())
                return found
        finally:
            assert not list(bounds.scratch.iterdir())

    return run
