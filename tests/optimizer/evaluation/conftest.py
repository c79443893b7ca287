"""The evaluation as it is asked in tests of what it reports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optimizer.evaluation.child import evaluate

type Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture
def messages() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def report_of(messages: list[dict[str, Any]]) -> Evaluate:
    def run(parent: Path, variant: Path, signature: dict[str, Any], **changes: Any) -> dict[str, Any]:
        spec = {
            "parent_path": str(parent),
            "variant_path": str(variant),
            "signature": signature,
            "evaluation_npz": None,
            "threads": 1,
            "budget_s": 1.0,
            "seed": 5,
        }
        return evaluate(spec | changes, messages.append)

    return run
