"""How ONNX Runtime is set: what is slower than its parts on a CPU is left apart, all else is optimized."""

from collections import Counter
from pathlib import Path

import onnx
import onnxruntime
from onnx import parser

from controlplane.core import onnx_session

BLOCK = """
<ir_version: 10, opset_import: ["" : 20]>
block (float[batch,rows,8] x, float[batch,rows,8] before) => (float[batch,rows,8] y)
<float[8] scale = {1,1,1,1,1,1,1,1}, float[8] bias = {0,0,0,0,0,0,0,0}> {
  sum = Add(x, before)
  normal = LayerNormalization<axis = -1>(sum, scale, bias)
  shifted = Add(normal, bias)
  y = Gelu(shifted)
}
"""


def test_a_sum_is_not_fused_with_its_normalization_while_all_else_is(tmp_path: Path) -> None:
    options = onnx_session.set_up(onnxruntime.SessionOptions(), threads=1)
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    content = parser.parse_model(BLOCK).SerializeToString()
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    ops = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert ops == {"Add": 1, "LayerNormalization": 1, "BiasGelu": 1}
