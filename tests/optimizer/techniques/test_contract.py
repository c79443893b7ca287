"""What holds for every technique of the table, ours and others'."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from pydantic import ValidationError

from controlplane.core import plugins
from controlplane.core.errors import Unprocessable
from optimizer.techniques import TECHNIQUES, parameters, promises_of, technique
from optimizer.techniques.port import Hardware, ModelSummary
from optimizer.workbench.formats import FORMATS
from tests.optimizer import onnx_models
from tests.optimizer.techniques.conftest import Made

DESIGN_KEYS = {
    "distill",
    "onnx-export",
    "onnx-graph",
    "fp16",
    "int8-dynamic",
    "int8-static",
    "openvino",
    "tensorrt",
}
MODELS = ["mlp", "cnn", "magika"]
each_technique = pytest.mark.parametrize("key", sorted(TECHNIQUES))
each_that_takes_onnx = pytest.mark.parametrize(
    "key",
    [
        key
        for key in sorted(TECHNIQUES)
        if "onnx" in {kind.format for kind in technique(key).takes} and not technique(key).resumes
    ],
)
"""Those that take something else, or train for long, are run by tests of their own."""
PLAIN = onnx_models.signature([("image", "FP32", ["n", 3, 12, 12])], [("scores", "FP32", ["n", 5])])


def test_the_table_lists_the_techniques_of_today() -> None:
    assert set(TECHNIQUES) >= DESIGN_KEYS


@each_technique
def test_a_row_and_its_technique_agree_on_key_and_label(key: str) -> None:
    assert (technique(key).key, technique(key).label) == (key, TECHNIQUES.rows()[key].label)


def test_declaring_techniques_imports_no_vendor_and_no_django() -> None:
    code = (
        "import sys; from optimizer.techniques import TECHNIQUES; "
        "[TECHNIQUES.load(key) for key in TECHNIQUES]; "
        "print(sorted({'onnx', 'onnxruntime', 'django', 'torch', 'openvino', 'nncf', 'tensorrt_rtx'} "
        "& sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@each_technique
def test_parameters_are_one_schema_that_a_form_can_be_made_from(key: str) -> None:
    schema = technique(key).parameters.model_json_schema()
    for field in schema["properties"].values():
        assert field["title"]
        assert field["description"].endswith(".")
        assert "default" in field
    assert json.loads(json.dumps(parameters(key, {}).model_dump(mode="json")))


@each_technique
def test_parameters_are_values_and_unknown_ones_are_refused(key: str) -> None:
    defaults = technique(key).parameters()
    with pytest.raises(ValidationError):
        setattr(defaults, next(iter(type(defaults).model_fields)), None)
    with pytest.raises(Unprocessable) as caught:
        parameters(key, {"no_such_thing": 1})
    assert caught.value.code == "invalid_parameters"
    assert list(caught.value.fields) == ["params.no_such_thing"]


@each_technique
def test_what_is_promised_is_a_range_with_its_effort(key: str) -> None:
    (promise,) = promises_of([key])
    assert promise["technique"] == key
    assert 1 <= promise["speedup"][0] <= promise["speedup"][1]
    assert 0 <= promise["loss_points"][0] <= promise["loss_points"][1]
    assert promise["effort"].endswith(".")


@each_technique
def test_a_check_is_pure_and_accepts_a_plain_model(key: str) -> None:
    used = technique(key)
    summary = ModelSummary(opset=17, op_types={"Conv": 1, "MatMul": 2, "Relu": 1})
    asked = [used.check(PLAIN, summary, Hardware(), used.parameters()) for _ in range(2)]
    assert asked == [(), ()]


@each_that_takes_onnx
@pytest.mark.parametrize("name", MODELS)
def test_a_result_opens_and_answers_like_its_parent(key: str, name: str, made: Callable[[str], Made]) -> None:
    model = made(name)
    done = model.optimize(key)
    if done["format"] == "onnx":
        onnx.checker.check_model(done["output_path"])
    if FORMATS[done["format"]].opener is None:
        pytest.skip("its result does not run on a CPU")
    with np.load(model.calibration) as items:
        feed = {key: items[key][:2] for key in items}
    theirs = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"]).run(None, feed)
    for a, b in zip(theirs, model.answers(done, feed), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.linalg.norm(a - b) <= 0.2 * np.linalg.norm(a)


@each_that_takes_onnx
def test_weights_that_are_inputs_too_are_still_weights(key: str, made: Callable[[str], Made]) -> None:
    model = made("cnn")
    onnx_models.cnn(model.path, opset=8)
    onnx_models.weights_as_inputs(model.path)
    done = model.optimize(key)
    if done["format"] == "onnx":
        graph = onnx.load(done["output_path"]).graph
        assert [value.name for value in graph.input] == ["image"]
        assert sum(done["provenance"]["nodes_after"].values()) > 0


@each_that_takes_onnx
def test_how_it_was_made_is_written_down(key: str, made: Callable[[str], Made]) -> None:
    model = made("mlp")
    done = model.optimize(key)
    provenance = json.loads(json.dumps(done["provenance"], allow_nan=False))
    assert provenance["technique"] == key
    assert provenance["params"] == parameters(key, {}).model_dump(mode="json")
    assert provenance["versions"]["onnxruntime"] == onnxruntime.__version__
    assert len(provenance["input_sha256"]) == len(provenance["output_sha256"]) == 64
    asked = provenance["params"].get("precision", "fp32")
    assert done["precision"] == (technique(key).gives.precision or asked)


@each_that_takes_onnx
def test_the_same_request_makes_the_same_bytes(key: str, made: Callable[[str], Made]) -> None:
    model = made("mlp")
    first, second = (model.optimize(key, output=f"{turn}.onnx") for turn in range(2))
    assert first["provenance"]["output_sha256"] == second["provenance"]["output_sha256"]


@each_that_takes_onnx
def test_it_says_what_it_does_and_leaves_nothing_but_its_result(
    key: str, made: Callable[[str], Made]
) -> None:
    model = made("mlp")
    model.optimize(key)
    steps = [message for message in model.messages if message["kind"] == "step"]
    assert [(step["index"], step["of"]) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert [path.name for path in (model.folder / "out").iterdir()] == ["made.onnx"]
    assert {message["kind"] for message in model.messages} <= {"step", "progress", "log"}


@each_that_takes_onnx
@pytest.mark.parametrize("content", [b"", b"\x7fELF" + bytes(100), b"\x08\x08"])
def test_what_is_no_model_is_refused_and_leaves_nothing(
    key: str, content: bytes, made: Callable[[str], Made]
) -> None:
    model = made("mlp")
    model.path.write_bytes(content)
    with pytest.raises(Unprocessable):
        model.optimize(key)
    assert not list((model.folder / "out").iterdir())


def test_convolutions_can_be_quantized_dynamically_when_asked(made: Callable[[str], Made]) -> None:
    done = made("cnn").optimize("int8-dynamic", params={"op_types": ["Conv", "Gemm"]})
    assert done["provenance"]["quantized_nodes"]["ConvInteger"] == 2


# A technique of another package, found through the entry-point group.


def leak(work: Any, params: Any) -> Mapping[str, Any]:
    raise MemoryError


def crash(work: Any, params: Any) -> Mapping[str, Any]:
    raise RuntimeError("std::bad_alloc" if work.seed == 1 else "the vendor gave up\nwith a long trace")


def swap(work: Any, params: Any) -> Mapping[str, Any]:
    onnx_models.scaled(work.output, name="other")
    return {}


def forget(work: Any, params: Any) -> Mapping[str, Any]:
    return {}


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Installs `their-technique` with an entry of this module."""

    def install(entry: str) -> None:
        from dataclasses import replace

        declared = replace(
            technique("onnx-graph"), key="their-technique", label="Theirs", entry=f"{__name__}:{entry}"
        )
        monkeypatch.setattr(sys.modules[__name__], "THEIRS", declared, raising=False)
        point = EntryPoint(name="their-technique", value=f"{__name__}:THEIRS", group="slipway.techniques")
        _offer(point, monkeypatch)

    return install


def _offer(point: EntryPoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: [point])
    TECHNIQUES.rows()
    monkeypatch.delitem(vars(TECHNIQUES), "_theirs")
    monkeypatch.setattr(TECHNIQUES, "_loaded", {})


def test_another_package_can_add_a_technique_but_not_replace_ours(
    theirs: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs("forget")
    assert technique("their-technique").label == "Theirs"
    ours = EntryPoint(name="onnx-graph", value=f"{__name__}:THEIRS", group="slipway.techniques")
    _offer(ours, monkeypatch)
    assert technique("onnx-graph").label == "Graph optimization"


@pytest.mark.parametrize(
    ("entry", "code"),
    [("crash", "technique_failed"), ("swap", "result_differs"), ("forget", "result_invalid")],
)
def test_a_technique_that_gives_up_or_makes_something_else_is_refused(
    entry: str, code: str, theirs: Callable[[str], None], made: Callable[[str], Made]
) -> None:
    theirs(entry)
    model = made("mlp")
    with pytest.raises(Unprocessable) as caught:
        model.optimize("their-technique")
    assert caught.value.code == code
    assert "\n" not in caught.value.detail
    assert not list((model.folder / "out").iterdir())


@pytest.mark.parametrize(("entry", "seed"), [("leak", 0), ("crash", 1)])
def test_missing_memory_is_told_as_that_and_not_as_a_refusal(
    entry: str, seed: int, theirs: Callable[[str], None], made: Callable[[str], Made]
) -> None:
    theirs(entry)
    with pytest.raises(MemoryError):
        made("mlp").optimize("their-technique", seed=seed)


def test_an_unknown_technique_is_refused_with_those_there_are() -> None:
    with pytest.raises(Unprocessable, match="onnx-graph") as caught:
        technique("tensor-magic")
    assert caught.value.code == "unknown_technique"
