"""Dynamic quantization with ONNX Runtime's tool, on a prepared copy of the model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optimizer.techniques.graph import PER_CHANNEL_OPSET, op_types, prepare, read, sort_file
from optimizer.techniques.int8_dynamic.technique import DynamicParameters
from optimizer.techniques.port import Work
from optimizer.techniques.quantization import also_split, exclusions, layers_of, require_change
from optimizer.techniques.repair import fitted_to, quantize_within_budget


def run(work: Work, params: DynamicParameters) -> dict[str, Any]:
    """Writes the quantized model to `work.output`. Raises Unprocessable: `unknown_nodes`, `nothing_quantized`, and
    what repairing it raises."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    prepared, done = prepare(work.input, scratch=work.scratch, at_least=PER_CHANNEL_OPSET)
    work.journal.info(f"Prepared: {', '.join(done)}.")
    model = read(prepared)
    before, asked = op_types(model), exclusions(params.exclude_nodes, model=model)
    layers = layers_of(model, op_types=params.op_types, excluded=asked)
    del model  # the quantizer reads one of its own

    def quantize(made: Path, left: Sequence[str]) -> None:
        quantize_dynamic(
            str(prepared),
            str(made),
            op_types_to_quantize=list(params.op_types),
            per_channel=params.per_channel,
            reduce_range=params.reduce_range,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=also_split([*asked, *left]),
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        sort_file(made)
        require_change(before=before, after=op_types(read(made)))

    repair = quantize_within_budget(
        work,
        original=prepared,
        quantize=quantize,
        rounds=params.repair_rounds,
        layers=layers,
    )
    made = require_change(before=before, after=op_types(read(work.output)))
    work.journal.info(f"Quantized nodes: {', '.join(f'{count} {name}' for name, count in made.items())}.")
    return {
        "preparation": done,
        "quantized_nodes": made,
        "repair": repair,
        "evaluation_items": fitted_to(repair),
    }
