"""Whatever the bytes are, the answer is a value or a refusal.

The parsers of our own run in this process, with many examples; some of them go through the whole sandbox.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake import Bounds, archive, inspected, inspected_dataset
from controlplane.registry.intake.walk import walk
from tests.controlplane.registry.intake.models import external, loop, mlp, nested_graphs, npz, write, zipped

MODELS = [
    mlp().SerializeToString(),
    loop(trips=3),
    nested_graphs(2),
    external(location="w.bin", offset="0", length="48").SerializeToString(),
]
SIGNATURE = {"inputs": [{"name": "x", "dtype": "FP32", "shape": ["n", 2]}], "outputs": [], "batch_axis": 0}
ARCHIVE = zipped({"m.onnx": MODELS[3], "w.bin": np.arange(12, dtype=np.float32).tobytes()})
DATASET = npz(x=np.ones((5, 2), dtype=np.float32), labels=np.arange(5), compressed=True)

# A refusal is looked at where it is caught, because whether there is one depends on the bytes.
# ruff: noqa: PT017

few = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
many = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """A good file with bytes changed, cut out, repeated or appended."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 12)))
        data[at:end] = draw(st.one_of(st.binary(max_size=12), st.just(bytes(data[at:end]) * 2)))
    return bytes(data)


@many
@given(st.one_of(st.binary(max_size=200), mutated(MODELS)))
def test_the_walk_ends_with_facts_or_a_refusal(body):
    try:
        facts = walk(memoryview(body))
    except Unprocessable as error:
        assert error.detail.isprintable()
    else:
        assert facts.nodes <= len(body)


@many
@given(mutated(MODELS))
def test_what_the_walk_accepts_the_parser_sees_alike(body):
    """A difference between our reader and theirs would be a way around every rule."""
    try:
        facts = walk(memoryview(body))
    except Unprocessable:
        return
    try:
        proto = onnx.load_from_string(body)
    except Exception:  # noqa: BLE001 - protobuf refuses more than the walk does, for example bad packed numbers
        return
    assert facts.initializers >= len(proto.graph.initializer)
    for tensor in proto.graph.initializer:
        assert all(size >= 0 for size in tensor.dims)
        if tensor.raw_data and not tensor.external_data:
            assert onnx.numpy_helper.to_array(tensor).shape == tuple(tensor.dims)


@many
@given(body=mutated([ARCHIVE, DATASET]))
def test_an_archive_unpacks_within_its_folder_or_is_refused(body, tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    path = write(folder, body)
    try:
        with archive.opened(path) as opened:
            members = archive.members(opened, file_bytes=len(body), total_bytes=10**6)
            for index, member in enumerate(members):
                archive.unpack(opened, member, folder / str(index))
                assert (folder / str(index)).stat().st_size == member.size_bytes
    except Unprocessable as error:
        assert error.detail.isprintable()


@many
@given(name=st.text(max_size=30))
def test_a_member_with_any_name_is_clean_or_refused(name, tmp_path_factory):
    buffer = io.BytesIO()
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    with zipfile.ZipFile(buffer, "w") as written:
        try:
            written.writestr(info, b"x")
        except UnicodeEncodeError:
            return
    path = write(tmp_path_factory.mktemp("archive"), buffer.getvalue())
    try:
        with archive.opened(path) as opened:
            members = archive.members(opened, file_bytes=path.stat().st_size, total_bytes=100)
    except Unprocessable:
        return
    for member in members:
        target = Path("/base", member.name)
        assert not {"..", "."} & set(target.parts)
        assert target.is_relative_to("/base")


@few
@given(body=st.one_of(st.binary(min_size=1, max_size=300), mutated([*MODELS, ARCHIVE])))
def test_any_bytes_get_an_answer_from_the_sandbox(body, tmp_path):
    bounds = Bounds(memory_bytes=2 * 1024**3, wall_s=20, scratch=tmp_path / "scratch")
    try:
        with inspected(write(tmp_path, body), bounds=bounds) as found:
            assert found.signature["inputs"]
    except Unprocessable as refusal:
        assert refusal.code != "unreadable", refusal.detail
    assert not list((tmp_path / "scratch").iterdir())


@few
@given(body=st.one_of(st.binary(max_size=200), mutated([DATASET])))
def test_any_bytes_as_a_data_set_get_an_answer_from_the_sandbox(body, tmp_path):
    bounds = Bounds(memory_bytes=2 * 1024**3, wall_s=20, scratch=tmp_path / "scratch")
    try:
        with inspected_dataset(write(tmp_path, body), signature=SIGNATURE, bounds=bounds) as found:
            assert found.items == 5
    except Unprocessable as error:
        assert error.code != "unreadable", error.detail


@pytest.mark.parametrize("body", MODELS[:3])
def test_the_models_that_are_mutated_are_good(body):
    assert walk(memoryview(body)).nodes
