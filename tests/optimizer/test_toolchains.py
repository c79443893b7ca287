"""Environments of their own: what a worker offers, where a job waits, and that a child runs there and only there."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.sandbox import MIB, Child, Limits
from optimizer import toolchains
from optimizer.domain.recipe import Recipe, Step
from optimizer.techniques import toolchains_of
from optimizer.workbench.formats import opened_by
from tests import toolchains as installed

KEYS = sorted(toolchains.TOOLCHAINS)
each_toolchain = pytest.mark.parametrize("key", KEYS)


@each_toolchain
def test_a_sandboxed_child_runs_on_a_toolchain_and_finds_its_packages(key: str, tmp_path: Path) -> None:
    python = installed.interpreter(key)
    found = toolchains.installed(python.parents[2])[key]
    assert set() < found.keys() <= set(toolchains.TOOLCHAINS[key].packages)
    limits = Limits(memory_bytes=1024 * MIB, cpu_s=20, wall_s=60, file_bytes=MIB)
    with Child.start(
        entry="tests.optimizer.where_it_runs:tell",
        spec={"packages": list(found)},
        scratch=tmp_path,
        limits=limits,
        python=python,
    ) as child:
        outcome = child.outcome()
    assert outcome.result is not None, outcome.detail
    assert (
        Path(outcome.result["prefix"]).resolve() == python.parents[1].resolve() != Path(sys.prefix).resolve()
    )
    assert outcome.result["versions"] == found


def test_nothing_is_offered_where_nothing_is_installed(tmp_path: Path) -> None:
    assert toolchains.installed(tmp_path) == {}
    assert toolchains.queues([]) == ["optimize.cpu"]


@given(st.sets(st.sampled_from(KEYS)), st.sets(st.sampled_from(KEYS)))
def test_a_worker_listens_where_a_job_waits_exactly_if_it_has_all_that_the_job_needs(
    needed: set[str], offered: set[str]
) -> None:
    assert (toolchains.queue(needed) in toolchains.queues(offered)) == (needed <= offered)


def test_a_recipe_of_our_own_packages_needs_none() -> None:
    recipe = Recipe(steps=(Step(technique="onnx-graph", params={}), Step(technique="int8-static", params={})))
    assert toolchains_of(recipe, parent_format="onnx") == set()


def test_what_a_step_needs_may_hang_on_its_parameters() -> None:
    recipe = Recipe(steps=(Step(technique="int8-static", params={"tool": "nncf"}),))
    assert toolchains_of(recipe, parent_format="onnx") == {"openvino"}


def test_what_parent_and_result_are_opened_by_is_needed_both() -> None:
    recipe = Recipe(steps=(Step(technique="onnx-export", params={}), Step(technique="openvino", params={})))
    assert toolchains_of(recipe, parent_format="torch") == {"openvino", "torch"}
    assert opened_by("torch", "openvino") == ("openvino", "torch")
    assert opened_by("torch", "onnx") == ("torch", None)
    assert opened_by("onnx", "openvino") == ("openvino", None)
    assert opened_by("onnx", "onnx") == (None, None)


@pytest.mark.parametrize(
    ("packages", "gpu", "offered"),
    [
        ({"tensorrt-rtx-cu12": "1.7"}, False, True),
        ({"tensorrt-rtx-cu12": "1.7", "tensorrt": "11.4"}, False, True),
        ({"tensorrt": "11.4"}, False, False),
        ({"tensorrt": "11.4"}, True, True),
    ],
)
def test_what_builds_on_a_gpu_only_is_offered_only_where_there_is_one(
    packages: dict[str, str], gpu: bool, offered: bool
) -> None:
    found = {"tensorrt": packages, "torch": {"torch": "2.15"}}
    assert toolchains.usable(found, gpu=gpu).keys() == {"torch", *(["tensorrt"] if offered else [])}


@pytest.mark.parametrize("gpu", [True, False])
def test_what_measures_on_a_gpu_is_offered_only_where_there_is_one(gpu: bool) -> None:
    found = {"cuda": {"onnxruntime-gpu": "1.31.1", "tensorrt-rtx-cu12": "1.7"}}
    assert bool(toolchains.usable(found, gpu=gpu)) == gpu
