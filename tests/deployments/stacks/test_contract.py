"""What every serving stack must say about itself. Runs on each row of the table."""

import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from pydantic import BaseModel, ValidationError

from deployments import stacks
from deployments.domain.spec import DEFAULT_STACK
from deployments.domain.vocabulary import Source, Word
from deployments.stacks.port import MissingToolchain, Stack, Support

from . import models
from .conftest import Start
from .replicas import REPOSITORY, client, request, values


def name_of(source: str | Source) -> str:
    return source.name if isinstance(source, Source) else source


@pytest.fixture(params=sorted(stacks.TABLE))
def stack(request: pytest.FixtureRequest) -> Stack:
    loaded: Stack = stacks.load(request.param)
    return loaded


def test_the_row_and_the_stack_have_one_key_and_label(stack: Stack) -> None:
    row = stacks.TABLE.rows()[stack.key]
    assert (row.key, row.label) == (stack.key, stack.label)


def test_a_stack_that_is_not_active_names_its_successor(stack: Stack) -> None:
    assert stack.support.state is Support.ACTIVE or stack.support.successor


def test_it_says_what_it_takes_and_where_it_ends(stack: Stack) -> None:
    assert stack.formats
    assert stack.protocol
    assert stack.ceiling.endswith(".")


def test_its_parameters_are_one_schema_with_a_text_for_each_field(stack: Stack) -> None:
    assert issubclass(stack.parameters, BaseModel)
    properties = stack.parameters.model_json_schema()["properties"]
    assert all(field.get("title") and field.get("description") for field in properties.values())
    assert set(stack.batching_knobs) <= set(properties)


def test_its_parameters_have_defaults_and_refuse_what_they_do_not_know(stack: Stack) -> None:
    assert stack.parameters()
    with pytest.raises(ValidationError):
        stack.parameters.model_validate({"no_such_knob": 1})


def test_its_metric_names_are_of_the_vocabulary_and_apart(stack: Stack) -> None:
    assert set(stack.metrics) <= set(Word)
    assert len({name_of(one) for one in stack.metrics.values()}) == len(stack.metrics)


def test_what_needs_a_gpu_is_one_of_its_formats_and_the_default_stack_runs_here(stack: Stack) -> None:
    assert set(stack.gpu_formats) <= set(stack.formats)
    assert stack.runs_here or stack.key != DEFAULT_STACK
    assert next(iter(stacks.TABLE)) == DEFAULT_STACK


def test_its_probes_use_ports_that_its_container_opens(stack: Stack) -> None:
    container = stack.container
    for probe in (container.live, container.ready, container.metrics):
        assert probe.path.startswith("/")
        assert probe.port in container.ports


def test_its_start_command_is_an_argv_that_ends_with_the_configuration(stack: Stack) -> None:
    config = Path("/somewhere/config.json")
    for artifact_format in stack.formats:
        try:
            command = stack.start_command(
                config, artifact_format=artifact_format, toolchains=settings.ENVIRONMENT.toolchains
            )
        except MissingToolchain:
            continue
        if not stack.runs_here:
            assert command is None
            continue
        if command is None:
            pytest.skip(
                f"not run: the packages of the stack {stack.key} are not installed (requirements/dev.lock has them)"
            )
        assert Path(command[0]).is_file()
        assert command[-1] == str(config)


def test_a_page_that_is_not_prometheus_text_is_an_error_and_an_empty_one_speaks_nothing(stack: Stack) -> None:
    assert stack.conformance("") == frozenset()
    with pytest.raises(ValueError):
        stack.conformance("<html>not a page</html>")


def test_a_histogram_without_its_last_bucket_is_not_spoken(stack: Stack) -> None:
    if Word.LATENCY not in stack.metrics:
        page = "".join(f"{name_of(one)} 1\n" for one in stack.metrics.values())
        assert stack.conformance(page) == set(stack.metrics), "it claims no histogram"
        return
    name = name_of(stack.metrics[Word.LATENCY])
    page = f'# TYPE {name} histogram\n{name}_bucket{{le="1"}} 2\n{name}_sum 1\n{name}_count 2\n'
    assert stack.conformance(page) == frozenset()
    whole = page.replace(f"{name}_sum", f'{name}_bucket{{le="+Inf"}} 2\n{name}_sum')
    assert stack.conformance(whole) == {Word.LATENCY}


def test_it_can_be_described_without_django_or_the_serving_libraries(stack: Stack) -> None:
    heavy = {"django", "fastapi", "onnxruntime", "openvino", "uvicorn", "torch", "kubernetes"}
    heavy |= {"tritonclient", "google.protobuf", "grpc"}
    code = (
        f"import sys; from deployments import stacks; stacks.load({stack.key!r}).parameters(); "
        f"print(*sorted({heavy!r} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, check=True, text=True
    )
    assert told.stdout.split() == []


async def test_a_running_fastapi_replica_speaks_every_word_its_stack_claims(start: Start) -> None:
    stack = stacks.load("fastapi")
    running = start(models.mlp).ready()
    async with client(running) as http:
        await http.infer(request(values("x", "FP32", [0.5] * 16, shape=[1, 16])))
        page = (await http.get(stack.container.metrics.path)).body.decode()
        assert stack.conformance(page) == set(stack.metrics)
        assert (await http.get(stack.container.live.path)).status == 200
        assert (await http.get(stack.container.ready.path)).status == 200


def test_an_unknown_key_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        stacks.load("no-such-stack")
