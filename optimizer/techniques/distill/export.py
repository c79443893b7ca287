"""A trained student as one ONNX file that answers to its teacher's names."""

import logging
from pathlib import Path

import numpy as np
import onnx
import torch

from optimizer.techniques.distill.students import Answering
from optimizer.techniques.writing import write
from optimizer.workbench.signature import Array, Signature

SAFE = {"input": "slipway_input", "output": "slipway_output"}
"""No value inside a graph is called so: the exporter makes an invalid graph of a name that collides."""


def export(answering: Answering, path: Path, *, signature: Signature, example: Array) -> None:
    """Writes the file. `example` is a batch of two items; the batch axis stays open unless the model's is fixed."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of every package that is not there
    batch = ({0: torch.export.Dim("batch")},) if signature.batched else None
    rows = example if signature.batched else example[:1]
    program = torch.onnx.export(
        answering.eval(),
        (torch.from_numpy(np.ascontiguousarray(rows)),),
        dynamo=True,
        input_names=[SAFE["input"]],
        output_names=[SAFE["output"]],
        dynamic_shapes=batch,
        verbose=False,
    )
    model = program.model_proto
    (given,), (answered,) = signature.inputs, signature.outputs
    _rename(model.graph, {SAFE["input"]: given.name, SAFE["output"]: answered.name})
    _forget_where_it_was_made(model)
    write(model, path)


def _rename(graph: onnx.GraphProto, wanted: dict[str, str]) -> None:
    """An inner value that has a wanted name steps aside."""
    names = wanted | {name: f"inner_{name}" for name in wanted.values()}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)


def _forget_where_it_was_made(model: onnx.ModelProto) -> None:
    """The exporter writes our stack traces, with folders of this machine, beside every node."""
    del model.metadata_props[:]
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
