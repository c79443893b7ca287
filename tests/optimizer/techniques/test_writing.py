"""A file that is written a weight at a time is the file that would have been written at once."""

from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, parser

from optimizer.techniques.writing import write
from tests.optimizer.onnx_models import magika_path

RICH = """
<ir_version: 10, opset_import: ["" : 20, "own" : 1], producer_name: "made", model_version: 7,
 metadata_props: ["key" : "value"], doc_string: "about it">
rich (float[n,2] x) => (float[n,2] y)
<float[2] weight = {1,2}, int64[1] other = {-1}> {
  long = own.twice(x)
  y = Mul(long, weight)
}
<domain: "own", opset_import: ["" : 20]> twice (a) => (b) { b = Add(a, a) }
"""


@pytest.mark.parametrize("made", ["magika", "rich", "bare"])
def test_the_same_model_comes_out(made: str, tmp_path: Path) -> None:
    model = {
        "magika": lambda: onnx.load(magika_path()),
        "rich": lambda: parser.parse_model(RICH),
        "bare": lambda: onnx.ModelProto(graph=onnx.GraphProto(name="bare")),
    }[made]()
    for name in ("once", "again"):
        write(model, tmp_path / name)
    assert onnx.load(tmp_path / "once") == model
    assert (tmp_path / "once").read_bytes() == (tmp_path / "again").read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=20_000), max_size=5), st.text(max_size=200))
def test_whatever_the_sizes_are(tmp_path: Path, weights: list[bytes], about: str) -> None:
    tensors = [
        helper.make_tensor(f"w{number}", TensorProto.UINT8, [len(raw)], raw, raw=True)
        for number, raw in enumerate(weights)
    ]
    graph = helper.make_graph([], "g", [], [], tensors, doc_string=about)
    write(helper.make_model(graph), tmp_path / "made")
    assert onnx.load(tmp_path / "made") == helper.make_model(graph)
