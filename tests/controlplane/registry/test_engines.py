"""What an engine is bound to, and which GPUs cannot load it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.registry.engines import Engine, Gpu, why_not

FACTS: dict[str, Any] = {
    "backend": "tensorrt_rtx",
    "label": "TensorRT for RTX",
    "version": "1.7.1.116",
    "capabilities": ["8.6", "8.9"],
    "flags": ["TF32"],
    "workspace_mib": 4096,
    "profiles": [{"x": {"min": [1, 4], "opt": [8, 4], "max": [32, 4]}}],
    "layers": 2,
    "size_bytes": 147_308,
    "build_s": 0.06,
    "source_sha256": "ab" * 32,
    "log_tail": ["Engine generation completed in 0.05 seconds."],
}


def engine(**changes: Any) -> Engine:
    found = Engine.of({"steps": [{"technique": "tensorrt", "engine": FACTS | changes}]})
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("gpu", "reason"),
    [
        (Gpu(capability="8.6"), ""),
        (Gpu(capability="8.9", version="1.7.1.116"), ""),
        (Gpu(capability="7.5"), "It was built for compute capability 8.6 and 8.9; this GPU has 7.5."),
        (
            Gpu(capability="8.6", version="1.8.0.1"),
            "It was built by TensorRT for RTX 1.7.1.116; this GPU's worker has 1.8.0.1.",
        ),
    ],
)
def test_a_gpu_that_an_engine_was_not_built_for_is_refused_with_what_it_was_built_for(
    gpu: Gpu, reason: str
) -> None:
    assert why_not(engine(), gpu) == reason


@given(
    st.sets(st.sampled_from(["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"]), min_size=1),
    st.sampled_from(["7.5", "8.6", "9.0"]),
)
def test_an_engine_loads_exactly_where_it_was_built_for(built: set[str], has: str) -> None:
    assert (why_not(engine(capabilities=sorted(built)), Gpu(capability=has)) == "") == (has in built)


def test_what_it_was_calibrated_with_is_said_by_the_step_that_did() -> None:
    steps = [{"calibration": {"sha256": "cd" * 32}}, {"engine": FACTS}]
    found = Engine.of({"steps": steps})
    assert found is not None
    assert found.calibration_sha256 == "cd" * 32
    assert found.sizes() == [{"input": "x", "min": "1 × 4", "opt": "8 × 4", "max": "32 × 4"}]


@pytest.mark.parametrize(
    "provenance",
    [
        {},
        {"uploaded": True},
        {"steps": [{"technique": "fp16"}]},
        {"steps": [{"engine": {"label": 7}}]},
        {"steps": [{"engine": "none"}]},
        {"steps": [{"engine": FACTS, "calibration": "none"}]},
        {"steps": [{"engine": FACTS}, {"technique": "other"}]},
    ],
)
def test_what_is_no_engine_is_none(provenance: dict[str, Any]) -> None:
    assert Engine.of(provenance) is None
