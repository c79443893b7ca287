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


@pytest.mark.parametrize(
    ("flags", "version", "loads"),
    [
        ([], "11.4.0", True),
        ([], "11.4.1", False),
        (["VERSION_COMPATIBLE"], "11.4.1", True),
        (["VERSION_COMPATIBLE"], "11.10.0", True),
        (["VERSION_COMPATIBLE"], "11.3.9", False),
    ],
)
def test_a_version_compatible_engine_loads_in_later_versions(
    flags: list[str], version: str, loads: bool
) -> None:
    made = engine(backend="tensorrt", label="TensorRT", version="11.4.0", flags=flags)
    assert (why_not(made, Gpu(capability="8.6", version=version)) == "") == loads


@pytest.mark.parametrize(
    ("has", "loads"), [("7.5", False), ("8.0", True), ("8.9", True), ("10.0", True), ("", False)]
)
def test_an_engine_for_ampere_and_later_loads_on_all_of_them(has: str, loads: bool) -> None:
    made = engine(backend="tensorrt", capabilities=["8.0"], hardware_compatibility="ampere_plus")
    reason = why_not(made, Gpu(capability=has))
    assert (reason == "") == loads
    if not loads:
        assert reason.startswith("It was built for compute capability 8.0 and later; this GPU has ")


def test_the_items_of_a_request_are_those_that_every_input_takes() -> None:
    shapes = {"a": {"min": [1, 4], "opt": [8, 4], "max": [32, 4]}, "b": {"min": [2], "opt": [8], "max": [16]}}
    assert engine(profiles=[shapes]).batches == (2, 16)
    assert engine(profiles=[]).batches == (1, 1)


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
