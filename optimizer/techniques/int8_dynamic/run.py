"""Dynamic quantization with ONNX Runtime's tool, on a prepared copy of the model."""

from typing import Any

from optimizer.techniques.graph import PER_CHANNEL_OPSET, op_types, prepare, read
from optimizer.techniques.int8_dynamic.technique import DynamicParameters
from optimizer.techniques.port import Work
from optimizer.techniques.quantization import exclusions, require_change


def run(work: Work, params: DynamicParameters) -> dict[str, Any]:
    """Writes the quantized model to `work.output`. Raises Unprocessable: `unknown_nodes`, `nothing_quantized`."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    prepared, done = prepare(work.input, scratch=work.scratch, at_least=PER_CHANNEL_OPSET)
    work.journal.info(f"Prepared: {', '.join(done)}.")
    model = read(prepared)
    quantize_dynamic(
        str(prepared),
        str(work.output),
        op_types_to_quantize=list(params.op_types),
        per_channel=params.per_channel,
        reduce_range=params.reduce_range,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=exclusions(params.exclude_nodes, present={node.name for node in model.graph.node}),
        extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    made = require_change(before=op_types(model), after=op_types(read(work.output)))
    work.journal.info(f"Quantized nodes: {', '.join(f'{count} {name}' for name, count in made.items())}.")
    return {"preparation": done, "quantized_nodes": made}
