"""PyTorch programs: read without PyTorch, kept without anything that could run, refused with the reason."""

import ast
import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.errors import Unprocessable
from controlplane.core.sandbox import MIB, Child, Limits
from controlplane.registry.intake import archive as zips
from controlplane.registry.intake import torch_archive, torch_program
from tests import toolchains
from tests.controlplane.registry.intake import torch_files as files

type Look = Callable[..., dict[str, Any]]
type Refused = Callable[..., Unprocessable]


def graph_of(kept: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(kept)) as archive:
        found: dict[str, Any] = json.loads(archive.read("model/models/model.json"))
    return found


def test_a_program_is_registered_with_its_signature_and_what_is_inside(look: Look) -> None:
    found = look(files.program())
    assert found["signature"] == {
        "inputs": [{"name": "x", "dtype": "FP32", "shape": ["batch", 3]}],
        "outputs": [{"name": "score", "dtype": "FP32", "shape": ["batch", 3]}],
        "batch_axis": 0,
    }
    summary = found["summary"]
    assert (summary["parameters"], summary["precision"], summary["nodes"]) == (3, "fp32", 2)
    assert summary["findings"] == ["The free dimension s0 was exported for sizes up to 64."]
    assert found["repacked"]


def test_the_kept_file_has_no_sample_inputs_no_source_lines_and_no_guards(look: Look) -> None:
    def guarded(graph: dict[str, Any]) -> None:
        graph["guards_code"] = ["exit()"]

    body = files.program(guarded, members={"data/sample_inputs/model.pt": files.pickle_that_writes("/x")})
    kept = look(body)["kept"]
    with zipfile.ZipFile(io.BytesIO(kept)) as archive:
        assert archive.read("model/data/sample_inputs/model.pt") == b""
        assert archive.read("model/data/weights/weight_0") == files.WEIGHTS.tobytes()
    assert b"somebody" not in kept
    assert graph_of(kept)["guards_code"] == []
    assert look(body)["kept"] == kept


def test_what_was_exported_on_a_gpu_is_kept_for_the_cpu(look: Look) -> None:
    def on_gpu(graph: dict[str, Any]) -> None:
        graph["graph_module"]["graph"]["tensor_values"]["x"]["device"] = {"type": "cuda", "index": 0}

    values = graph_of(look(files.program(on_gpu))["kept"])["graph_module"]["graph"]["tensor_values"]
    assert values["x"]["device"] == {"type": "cpu", "index": None}


def test_a_class_of_transformers_becomes_the_dict_that_it_is(look: Look) -> None:
    def as_class(graph: dict[str, Any]) -> None:
        spec = graph["graph_module"]["module_call_graph"][0]["signature"]
        spec["out_spec"] = spec["out_spec"].replace("builtins.dict", "transformers.modeling_outputs.X")

    found = look(files.program(as_class))
    assert found["signature"]["outputs"][0]["name"] == "score"
    assert b"transformers" not in found["kept"]


def set_at(*path: str | int, value: Any) -> files.Change:
    def change(tree: dict[str, Any]) -> None:
        place: Any = tree
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value

    return change


GRAPH = ("graph_module", "graph")
SPECS = ("graph_module", "signature")
ROOT = ("graph_module", "module_call_graph", 0, "signature")
UNSAFE = {
    "a size that is code": ({"change": files.size_that_writes("/x")}, "expr_str"),
    "a target outside of ATen": ({"change": files.target_that_loads}, "torch.hub.load"),
    "an operator that reads files": (
        {"change": set_at(*GRAPH, "nodes", 0, "target", value="torch.ops.aten.from_file.default")},
        "from_file",
    ),
    "a name that is code": (
        {"change": set_at(*GRAPH, "inputs", 1, value=files.tensor("x, y=exit()"))},
        "name “x, y=exit()”",
    ),
    "a text where none belongs": ({"change": set_at("schema_version", "major", value="exit()")}, "major"),
    "a custom object": (
        {"change": set_at(*GRAPH, "custom_obj_values", value={"o": {"name": "o", "class_fqn": "C"}})},
        "custom object",
    ),
    "pickled weights": ({"change_weights": set_at("config", "w", "use_pickle", value=True)}, "use_pickle"),
    "weights elsewhere": (
        {"change_weights": set_at("config", "w", "path_name", value="../sample_inputs/model.pt")},
        "path_name",
    ),
    "a custom constant": ({"members": {"data/constants/opaque_obj_0": b"x"}}, "opaque_obj_0"),
    "compiled parts": ({"members": {"data/aotinductor/model/a.so": b"\x7fELF"}}, "compiled parts"),
    "weights of the older layout": ({"members": {"data/weights/model.pt": b"x"}}, "pickle"),
    "extra files": ({"members": {"extra/readme": b"x"}}, "extra files"),
    "a member that nobody knows": ({"members": {"data/more": b"x"}}, "data/more"),
}
UNUSABLE = {
    "weights that are not all there": (
        {"members": {"data/weights/weight_0": b"1234"}},
        "bad_program",
        "12 bytes",
    ),
    "another format": ({"members": {"archive_format": b"pt3"}}, "bad_program", "archive_format"),
    "no program": ({"members": {"models/model.json": None}}, "bad_program", "no program"),
    "two programs": ({"members": {"models/other.json": b"{}"}}, "bad_program", "2 programs"),
    "no JSON": ({"members": {"models/model.json": b"["}}, "bad_program", "not JSON"),
    "deep JSON": ({"members": {"models/model.json": b"[" * 99_999}}, "bad_program", "not JSON"),
    "no signature": ({"change": set_at("graph_module", "signature", value={})}, "bad_program", "signature"),
    "a class of somebody": (
        {"change": set_at(*ROOT, "out_spec", value=files.tree("a").replace("builtins.dict", "m.C"))},
        "bad_program",
        "m.C",
    ),
    "a number as input": (
        {"change": set_at(*SPECS, "input_specs", 1, value={"user_input": {"arg": {"as_int": 1}}})},
        "unsupported_signature",
        "int",
    ),
    "state that changes": (
        {"change": set_at(*SPECS, "output_specs", 0, value={"buffer_mutation": {"buffer_name": "w"}})},
        "unsupported_signature",
        "eval mode",
    ),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_what_could_run_is_refused_with_the_reason(kind: str, refused_here: Refused) -> None:
    changes, why = UNSAFE[kind]
    error = refused_here(files.program(**changes))
    assert error.code == "unsafe_format"
    assert why in error.detail


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_cannot_be_used_is_refused_with_the_reason(kind: str, refused_here: Refused) -> None:
    changes, code, why = UNUSABLE[kind]
    error = refused_here(files.program(**changes))
    assert error.code == code
    assert why in error.detail


KEYS = [
    "name",
    "as_tensor",
    "as_int",
    "as_expr",
    "expr_str",
    "arg",
    "type",
    "context",
    "children_spec",
    "device",
    "config",
]
TOKENS = [
    "Symbol('s0', positive=True)",
    "Mul(",
    "Integer(",
    ")",
    ", ",
    "2",
    "exit(",
    "'os'",
    ".x",
    "lambda: ",
    "[",
]


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(TOKENS), max_size=8).map("".join)))
def test_a_size_that_is_kept_calls_nothing_but_arithmetic(text: str) -> None:
    try:
        kept = torch_program.parsed(json.dumps({"expr_str": text}).encode(), what="a test")
        tree = ast.parse(kept["expr_str"], mode="eval")
    except (Unprocessable, SyntaxError):
        return
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert names <= {"Symbol", "true", "false", *torch_program.SYMPY}
    assert not any(isinstance(node, ast.Attribute | ast.Lambda) for node in ast.walk(tree))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100)
@given(st.data())
def test_a_program_with_anything_anywhere_is_read_or_refused_and_never_breaks_the_reader(data: Any) -> None:
    graph, config = files.model(), files.weights()
    for tree in data.draw(st.sampled_from([[graph], [config], [graph, config]])):
        place: Any = tree
        for _ in range(data.draw(st.integers(0, 8))):
            inner = [key for key in (place if isinstance(place, dict) else range(len(place))) if place[key]]
            nested = [key for key in inner if isinstance(place[key], dict | list)]
            if not nested:
                break
            place = place[data.draw(st.sampled_from(nested))]
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        place[data.draw(st.sampled_from(keys))] = data.draw(JSON)
    body = files.program(lambda tree: tree.update(graph), change_weights=lambda tree: tree.update(config))
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(io.BytesIO(body)) as archive:
        members = zips.members(archive, file_bytes=len(body), total_bytes=2**20)
        with suppress(Unprocessable):
            torch_archive.inspect(archive, members, Path(folder) / "kept")


def test_torch_runs_the_payloads_that_are_refused_and_loads_what_is_kept(look: Look, tmp_path: Path) -> None:
    """The hostile files of this module are hostile: PyTorch itself runs them."""
    inputs, size = tmp_path / "ran-inputs", tmp_path / "ran-size"
    hostile = {
        "inputs": files.program(
            members={"data/sample_inputs/model.pt": files.pickle_that_writes(str(inputs))}
        ),
        "size": files.program(files.size_that_writes(str(size))),
    }
    paths = {name: tmp_path / f"{name}.pt2" for name in (*hostile, "kept")}
    for name, body in hostile.items():
        paths[name].write_bytes(body)
    paths["kept"].write_bytes(look(hostile["inputs"])["kept"])
    with Child.start(
        entry="tests.controlplane.registry.intake.torch_loads:load",
        spec={"paths": [str(paths[name]) for name in ("kept", "inputs", "size")], "x": [[1.0, 1.0, 1.0]] * 2},
        scratch=tmp_path,
        limits=Limits(memory_bytes=8192 * MIB, cpu_s=60, wall_s=120, file_bytes=MIB),
        python=toolchains.interpreter("torch"),
    ) as child:
        outcome = child.outcome()
    assert outcome.result is not None, outcome.detail
    first, *others = outcome.result["loaded"]
    assert first == {"ran": [], "score": [[2.5, 0.0, 1.25]] * 2}
    assert [each["ran"] for each in others] == [["ran-inputs"], ["ran-inputs", "ran-size"]]
