"""Toolchains in tests: the real ones, or the test is reported as not run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from controlplane.core.sandbox import MIB, Child, Limits
from optimizer import toolchains

LIMITS = Limits(memory_bytes=8192 * MIB, cpu_s=60, wall_s=120, file_bytes=512 * MIB)


def interpreter(key: str) -> Path:
    """Skips the test where the toolchain is not installed: `make toolchains`, and `make test` before it runs."""
    found = toolchains.python(settings.ENVIRONMENT.toolchains, key)
    if found is None:
        pytest.skip(f"not run: the toolchain {key} is not installed (make toolchains)")
    return found


def as_openvino(model: Path, *, signature: Mapping[str, Any], folder: Path) -> Path:
    """The same model as OpenVINO IR in `folder`, made as a job makes it."""
    made = folder / "model.zip"
    spec = {
        "technique": "openvino",
        "params": {"precision": "fp32"},
        "input_path": str(model),
        "output_path": str(made),
        "signature": signature,
        "seed": 0,
    }
    python = interpreter("openvino")
    with Child.start(
        entry="optimizer.techniques.child:run",
        spec=spec,
        scratch=folder,
        limits=LIMITS,
        readable=[model],
        python=python,
    ) as child:
        outcome = child.outcome()
    assert outcome.result is not None, outcome
    return made
