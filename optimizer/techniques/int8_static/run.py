"""Static quantization with ONNX Runtime's tool: QDQ, unsigned activations, signed weights.

Unsigned activations with signed weights are the pair that x86 integer kernels are written for (2.6 times
faster than signed with signed on a conv net).
"""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from controlplane.core.errors import Unprocessable
from optimizer.techniques.graph import PER_CHANNEL_OPSET, op_types, prepare, read
from optimizer.techniques.int8_static.technique import QUANTIZABLE, StaticParameters
from optimizer.techniques.port import Work
from optimizer.techniques.quantization import exclusions, require_change
from optimizer.workbench.items import StoredItems, digest, read_npz
from optimizer.workbench.journal import Journal
from optimizer.workbench.signature import Feed

# Histograms keep every activation of a stride in memory.
STRIDE = 8
# Of an evaluation set: what calibrates is not compared, and a verdict needs hundreds of items.
BORROWED_SHARE = 4


class Reader:
    """Hands items to ONNX Runtime's calibrator, in strides. Has the methods of its CalibrationDataReader."""

    def __init__(self, items: StoredItems, chosen: list[int], journal: Journal) -> None:
        self._items, self._chosen, self._journal = items, chosen, journal
        self._range = iter(chosen)
        self._done = 0

    def __len__(self) -> int:
        return len(self._chosen)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._range = iter(self._chosen[start_index:end_index])

    def get_next(self) -> Feed | None:
        index = next(self._range, None)
        if index is None:
            return None
        self._done += 1
        self._journal.progress(self._done, len(self._chosen))
        return self._items.feed([index])

    def __iter__(self) -> Iterator[Feed]:
        return iter(self.get_next, None)


def run(work: Work, params: StaticParameters) -> dict[str, Any]:
    """Writes the quantized model to `work.output`.

    Raises Unprocessable: `calibration_missing`, what the set is refused for, `unknown_nodes`,
    `nothing_quantized`. Cost: one run of the float model per calibration item.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    if work.calibration is None:
        raise Unprocessable(
            "calibration_missing",
            "Static quantization needs items to calibrate with.",
            "Upload a calibration set, or an evaluation set that it may take items from.",
        )
    items = read_npz(work.calibration, work.signature)
    borrowed = work.calibration_source == "evaluation_set"
    most = max(1, len(items) // BORROWED_SHARE) if borrowed else len(items)
    chosen = _chosen(len(items), wanted=min(params.calibration_items, most), seed=work.seed)
    prepared, done = prepare(work.input, scratch=work.scratch, at_least=PER_CHANNEL_OPSET)
    work.journal.info(f"Prepared: {', '.join(done)}. Calibrating on {len(chosen)} items.")
    model = read(prepared)
    before = op_types(model)
    scope = _scope(params, before)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a line per stride
        quantize_static(
            str(prepared),
            str(work.output),
            Reader(items, chosen, work.journal),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZABLE) if scope == "weights" else None,
            per_channel=params.per_channel,
            reduce_range=params.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=exclusions(
                params.exclude_nodes, present={node.name for node in model.graph.node}
            ),
            calibrate_method={
                "minmax": CalibrationMethod.MinMax,
                "entropy": CalibrationMethod.Entropy,
                "percentile": CalibrationMethod.Percentile,
            }[params.calibration],
            extra_options={
                "MatMulConstBOnly": scope == "weights",
                "DefaultTensorType": onnx.TensorProto.FLOAT,
                "CalibStridedMinMax": min(STRIDE, len(chosen)),
                "CalibPercentile": params.percentile,
            },
        )
    made = require_change(before=before, after=op_types(read(work.output)))
    work.journal.info(f"Quantized nodes: {', '.join(f'{count} {name}' for name, count in made.items())}.")
    return {
        "preparation": done,
        "scope": scope,
        "quantized_nodes": made,
        "calibration": {
            "source": work.calibration_source,
            "sha256": digest(work.calibration),
            "method": params.calibration,
            "items": len(chosen),
        },
        "evaluation_items": chosen if borrowed else [],
    }


def _chosen(available: int, *, wanted: int, seed: int) -> list[int]:
    """Indices drawn without repeats; a whole number of strides, or fewer than one."""
    count = min(available, wanted)
    if count > STRIDE:
        count -= count % STRIDE
    order = np.random.default_rng(seed).permutation(available)
    return sorted(int(index) for index in order[:count])


def _scope(params: StaticParameters, nodes: dict[str, int]) -> str:
    """Every operator only where it is safe: residual conv nets gain from staying in integers throughout."""
    if params.scope != "auto":
        return params.scope
    return "all" if nodes.get("Conv") and not nodes.get("MatMul") else "weights"
