"""What Triton is told: every file is read back by the schema of its own client, never compared as text."""

import string
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tritonclient.grpc import model_config_pb2

from controlplane.core import names
from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.tensors import SIGNATURE_TYPES
from deployments import stacks
from deployments.domain.vocabulary import MetricsMap, Word
from deployments.domain.workload import Batching, Workload
from deployments.stacks.triton.check import check
from deployments.stacks.triton.config import NAME
from deployments.stacks.triton.parameters import Parameters
from deployments.stacks.triton.repository import Repository, model_repository, parameters_of
from deployments.telemetry.exposition import PageReader
from deployments.telemetry.layout import Layout

MLP: dict[str, Any] = {
    "inputs": [{"name": "x", "dtype": "FP32", "shape": ["n", 256]}],
    "outputs": [{"name": "y", "dtype": "FP32", "shape": ["n", 10]}],
    "batch_axis": 0,
}


def workload(**fields: Any) -> Workload:
    given: dict[str, Any] = {
        "revision": 3,
        "replicas": 1,
        "stack": "triton",
        "model_name": "fraud-detector",
        "model_version": "7",
        "artifact_sha256": "0" * 64,
        "artifact_path": "/artifacts/00",
        "signature": MLP,
        "batching": Batching(),
    }
    return Workload(**given | fields)


def read_back(repository: Repository) -> Any:
    """The one configuration of a repository, by the server's schema."""
    (text,) = repository.files.values()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def config(**fields: Any) -> Any:
    return read_back(model_repository(workload(**fields)))


def test_an_onnx_variant_has_its_folder_its_version_and_runs_on_the_cpu() -> None:
    batching = Batching(
        max_batch_size=32, preferred_batch_size=(8, 16, 32), max_queue_delay_microseconds=5000
    )
    repository = model_repository(workload(batching=batching, threads=2))
    assert list(repository.files) == ["fraud-detector/config.pbtxt"]
    assert repository.artifact == "fraud-detector/7/model.onnx"
    assert repository.warnings == ()
    read = read_back(repository)
    assert (read.name, read.platform, read.backend) == ("fraud-detector", "onnxruntime_onnx", "onnxruntime")
    assert read.max_batch_size == 32
    assert list(read.dynamic_batching.preferred_batch_size) == [8, 16, 32]
    assert read.dynamic_batching.max_queue_delay_microseconds == 5000
    assert list(read.version_policy.specific.versions) == [7]
    assert [(one.kind, one.count) for one in read.instance_group] == [
        (model_config_pb2.ModelInstanceGroup.KIND_CPU, 1)
    ]
    assert read.parameters["intra_op_thread_count"].string_value == "2"


def test_an_engine_is_a_plan_on_as_many_instances_of_the_gpu_as_are_asked_for() -> None:
    asked = workload(artifact_format="tensorrt")
    repository = model_repository(asked, parameters_of(asked, instance_count=3))
    assert repository.artifact == "fraud-detector/7/model.plan"
    read = read_back(repository)
    assert (read.platform, read.backend) == ("tensorrt_plan", "tensorrt")
    assert [(one.kind, one.count) for one in read.instance_group] == [
        (model_config_pb2.ModelInstanceGroup.KIND_GPU, 3)
    ]
    assert not read.parameters


def test_the_limit_of_waiting_requests_and_what_only_some_servers_know_are_never_written() -> None:
    read = config(batching=Batching(max_queue_size=12))
    assert not read.dynamic_batching.HasField("default_queue_policy")
    assert read.dynamic_batching.priority_levels == 0
    assert not read.HasField("model_metrics")
    assert not read.HasField("response_cache")


def test_the_batch_is_no_dimension_free_ones_are_minus_one_and_texts_are_strings() -> None:
    read = config(
        signature={
            "inputs": [
                {"name": "text", "dtype": "BYTES", "shape": ["n", "?0"]},
                {"name": "length", "dtype": "INT64", "shape": ["n"]},
            ],
            "outputs": [{"name": "vector", "dtype": "FP16", "shape": ["n", "words", 384]}],
            "batch_axis": 0,
        }
    )
    text, length = read.input
    assert (text.data_type, list(text.dims)) == (model_config_pb2.TYPE_STRING, [-1])
    assert (list(length.dims), length.HasField("reshape"), list(length.reshape.shape)) == ([1], True, [])
    (vector,) = read.output
    assert (vector.data_type, list(vector.dims)) == (model_config_pb2.TYPE_FP16, [-1, 384])


@pytest.mark.parametrize(
    "signature",
    [
        MLP | {"inputs": [{"name": "x", "dtype": "FP32", "shape": [1, 256]}], "batch_axis": None},
        MLP | {"outputs": [{"name": "y", "dtype": "FP32", "shape": [10]}]},
    ],
    ids=["fixed batch", "one answer for the whole batch"],
)
def test_what_takes_one_request_at_a_time_is_not_batched(signature: dict[str, Any]) -> None:
    read = config(signature=signature)
    assert (read.max_batch_size, read.HasField("dynamic_batching")) == (0, False)
    assert [len(one.dims) for one in read.input] == [2]


def test_batches_of_one_are_not_waited_for() -> None:
    read = config(batching=Batching(max_batch_size=1))
    assert (read.max_batch_size, read.HasField("dynamic_batching")) == (1, False)
    assert list(read.input[0].dims) == [256]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model_name": "../etc"}, "cannot be the name of a folder"),
        ({"model_version": "new"}, "whole numbers from 1"),
        ({"artifact_format": "openvino"}, "not openvino"),
        ({"signature": MLP | {"outputs": [{"name": "y", "dtype": "FP32", "shape": []}]}}, "without an axis"),
        ({"signature": MLP | {"inputs": [{"name": "x", "dtype": "INT4", "shape": ["n"]}]}}, "type INT4"),
    ],
)
def test_what_triton_could_not_serve_is_refused_with_a_sentence(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        model_repository(workload(**fields))
    assert (refused.value.code, told in refused.value.detail) == ("not_for_triton", True)


def test_a_preferred_size_that_the_model_cannot_take_is_refused_with_its_field() -> None:
    fixed = MLP | {"inputs": [{"name": "x", "dtype": "FP32", "shape": [1, 256]}], "batch_axis": None}
    text = model_repository(workload(signature=fixed)).files["fraud-detector/config.pbtxt"]
    (problem,) = check(text + "dynamic_batching { preferred_batch_size: 4 }")
    assert problem.field == "dynamic_batching.preferred_batch_size"


@given(st.from_regex(names.NAME, fullmatch=True))
def test_every_name_of_the_registry_is_a_model_s_name_here(name: str) -> None:
    assert NAME.fullmatch(name)


axes = st.one_of(st.integers(1, 2**31), st.text(string.ascii_letters + "_?", min_size=1, max_size=8))
# Names come from a model file: quotes, line ends and braces must stay inside them.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
ports = st.lists(
    st.fixed_dictionaries(
        {
            "name": texts,
            "dtype": st.sampled_from(sorted(SIGNATURE_TYPES | {"BF16"})),
            "shape": st.lists(axes, min_size=1, max_size=5),
        }
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda port: port["name"],
)


@st.composite
def signatures(draw: st.DrawFn) -> dict[str, Any]:
    sides: dict[str, Any] = {"inputs": draw(ports), "outputs": draw(ports)}
    if batched := draw(st.booleans()):
        for port in sides["inputs"] + draw(st.sampled_from([[], sides["outputs"]])):
            port["shape"][0] = "n"
    return sides | {"batch_axis": 0 if batched else None}


@st.composite
def settings(draw: st.DrawFn) -> Parameters:
    most = draw(st.integers(1, 1024))
    levels = draw(st.integers(0, 10))
    timeout = draw(st.integers(0, 60_000_000))
    return Parameters(
        max_batch_size=most,
        preferred_batch_size=tuple(sorted(draw(st.sets(st.integers(1, most), max_size=5)))),
        max_queue_delay_microseconds=draw(st.integers(0, 1_000_000)),
        instance_count=draw(st.integers(2 if levels or timeout else 1, 64)),
        priority_levels=levels,
        default_priority_level=draw(st.integers(1, levels)) if levels else 0,
        queue_timeout_microseconds=timeout,
        queue_timeout_action=draw(st.sampled_from(["REJECT", "DELAY"])),
    )


@given(signatures(), settings(), st.sampled_from(["onnx", "tensorrt"]))
def test_whatever_is_asked_for_is_read_back_as_it_was_and_has_no_error(
    signature: dict[str, Any], parameters: Parameters, artifact_format: str
) -> None:
    asked = workload(signature=signature, artifact_format=artifact_format)
    repository = model_repository(asked, parameters)
    read = read_back(repository)
    assert [one.name for one in read.input] == [one["name"] for one in signature["inputs"]]
    assert [one.name for one in read.output] == [one["name"] for one in signature["outputs"]]
    for port, spec in zip(read.output, signature["outputs"], strict=True):
        whole = [-1 if isinstance(size, str) else size for size in spec["shape"]]
        rows = [-1] if read.max_batch_size else []
        assert rows + list(port.reshape.shape if port.HasField("reshape") else port.dims) == whole
    if read.HasField("dynamic_batching"):
        assert tuple(read.dynamic_batching.preferred_batch_size) == parameters.preferred_batch_size
        assert read.dynamic_batching.default_priority_level == parameters.default_priority_level
    stalls = parameters.has_queue_policy and read.HasField("dynamic_batching")
    assert bool(repository.warnings) == stalls
    (text,) = repository.files.values()
    assert check(text, name=asked.model_name) == repository.warnings


TWO = "instance_group { count: 2 } max_batch_size: 8 "
INPUT = 'input { name: "x" data_type: TYPE_FP32 '


@pytest.mark.parametrize(
    ("text", "field"),
    [
        # The guide's example: there is neither such a field in the map's entry nor such a level.
        (
            "dynamic_batching { priority_queue_policy { default_priority_level: PRIORITY_MEDIUM } }",
            "default_priority_level",
        ),
        ("dynamic_batching { default_priority_level: PRIORITY_MEDIUM }", "default_priority_level"),
        ("dynamic_batching { priority_levels: -1 }", "priority_levels"),
        ("dynamic_batching {\n  preferred_batch_size: [ 4,\n 8.5 ] }", "preferred_batch_size"),
        ('max_batch_size: "eight"', "max_batch_size"),
        ('name: "m" max_batch_size 8', "max_batch_size"),
        ("instance_group [ { kind: KIND_TPU } ]", "kind"),
        ("dynamic_batching { preferred_batch_size: 4", "preferred_batch_size"),
    ],
)
def test_what_cannot_be_read_names_its_field(text: str, field: str) -> None:
    (problem,) = check(text)
    assert (problem.field, problem.severity) == (field, "error")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (TWO + "dynamic_batching { preferred_batch_size: 16 }", "dynamic_batching.preferred_batch_size"),
        (TWO + "dynamic_batching { preferred_batch_size: 0 }", "dynamic_batching.preferred_batch_size"),
        (TWO + "dynamic_batching { preferred_batch_size: -4 }", "dynamic_batching.preferred_batch_size"),
        (TWO + "dynamic_batching { priority_levels: 3 }", "dynamic_batching.default_priority_level"),
        (
            TWO + "dynamic_batching { priority_levels: 3 default_priority_level: 4 }",
            "dynamic_batching.default_priority_level",
        ),
        (
            TWO + "dynamic_batching { priority_levels: 3 default_priority_level: 2 "
            "priority_queue_policy { key: 4 value { max_queue_size: 8 } } }",
            "dynamic_batching.priority_queue_policy",
        ),
        (
            TWO + "dynamic_batching { priority_levels: 3 default_priority_level: 2 preserve_ordering: true }",
            "dynamic_batching.preserve_ordering",
        ),
        ("max_batch_size: -1", "max_batch_size"),
        ('platform: "tensorrt_plan" backend: "onnxruntime"', "backend"),
        ('name: "other"', "name"),
        ('input { name: "x" dims: 4 }', "input.x.data_type"),
        ("input { data_type: TYPE_FP32 dims: 4 }", "input.name"),
        (INPUT + "}", "input.x.dims"),
        (INPUT + "dims: 0 }", "input.x.dims"),
        (INPUT + "dims: 1 reshape { } }", "input.x.reshape"),
    ],
)
def test_what_the_parser_takes_and_the_server_refuses_is_an_error_with_its_field(
    text: str, field: str
) -> None:
    errors = [one for one in check(text, name="m") if one.severity == "error"]
    assert [one.field for one in errors] == [field]


POLICIES = {
    "priority_levels": "priority_levels: 2 default_priority_level: 1",
    "default_queue_policy": "default_queue_policy { default_timeout_microseconds: 100 }",
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(
    ("count", "severity"), [(None, "error"), (1, "error"), (2, "warning"), (4, "warning")]
)
def test_what_makes_the_batcher_stall_is_refused_with_one_instance_and_warned_of_with_more(
    name: str, count: int | None, severity: str
) -> None:
    group = f"instance_group {{ count: {count} }}" if count else ""
    (problem,) = check(f"max_batch_size: 8 {group} dynamic_batching {{ {POLICIES[name]} }}")
    assert (problem.field, problem.severity) == (f"dynamic_batching.{name}", severity)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"priority_levels": 3, "default_priority_level": 2}, "needs an instance_count of 2"),
        ({"queue_timeout_microseconds": 100}, "needs an instance_count of 2"),
        ({"priority_levels": 3, "instance_count": 2}, "between 1 and priority_levels 3"),
        (
            {"priority_levels": 3, "default_priority_level": 4, "instance_count": 2},
            "between 1 and priority_levels 3",
        ),
        ({"default_priority_level": 1}, "there are no priority_levels"),
        ({"max_batch_size": 8, "preferred_batch_size": [16]}, "above max_batch_size 8"),
    ],
)
def test_parameters_refuse_what_would_stall_or_not_load(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Parameters.model_validate(values)


PAGE = """\
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="m",version="1"} 40
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="m",reason="REJECTED",version="1"} 3
nv_inference_request_failure{model="m",reason="BACKEND",version="1"} 0
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{model="m",version="1"} 2500000
# TYPE nv_inference_request_duration_us counter
nv_inference_request_duration_us{model="m",version="1"} 4000000
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="m",version="1"} 6
"""


def test_a_page_of_triton_is_read_in_seconds_and_by_reason() -> None:
    stack = stacks.load("triton")
    assert stack.conformance(PAGE) == set(stack.metrics) - {Word.GPU_UTILIZATION}
    metrics = MetricsMap.of({str(word): source for word, source in stack.metrics.items()})
    page = PageReader(names=metrics.sample_names).read(PAGE.encode())
    seen = Layout.of(page.series, metrics).read(page)
    counts = {(one.word, one.reason): one.value for one in seen.counts}
    assert counts == {
        (Word.REQUESTS, ""): 40,
        (Word.ERRORS, "REJECTED"): 3,
        (Word.ERRORS, "BACKEND"): 0,
        (Word.QUEUE_SECONDS, ""): pytest.approx(2.5),
        (Word.IN_FLIGHT_SECONDS, ""): pytest.approx(4),
    }
    assert seen.gauges == {Word.QUEUE_DEPTH: 6}


def test_its_image_is_pinned_to_one_release() -> None:
    image = stacks.load("triton").container.image
    assert image.startswith("nvcr.io/nvidia/tritonserver:")
    assert image.endswith("-py3")
    assert "latest" not in image
