"""The export as its child runs it, on the toolchain that opens the source.

PyTorch's exporter gets no output names: one that equals the name of an inner value gives an invalid graph without an
exception (pytorch issues 158094 and 168211). The outputs are renamed afterwards, and who had the name gives way.
"""

import logging
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

from controlplane.core.errors import Unprocessable
from optimizer.techniques.onnx_export import parity, script, sklearn
from optimizer.techniques.onnx_export.technique import ExportParameters
from optimizer.techniques.port import Work
from optimizer.techniques.writing import write
from optimizer.workbench import sklearn_model, torch_program, torch_script, transformers_model
from optimizer.workbench.formats import Session
from optimizer.workbench.session import first_line, pass_on
from optimizer.workbench.signature import Signature

TRAINED = frozenset(
    f"aten::{name}"
    for name in ("alpha_dropout", "batch_norm", "dropout", "feature_dropout", "native_dropout")
)
MAX_BYTES = int(1.9 * 1024**3)


def run(work: Work, params: ExportParameters) -> dict[str, Any]:
    """Raises Unprocessable: `training_mode`, `not_exportable` with the exporter's reason, `too_large_for_one_file`, and
    what `parity.compare` finds."""
    import onnx_ir as ir  # type: ignore[import-not-found, unused-ignore]

    model, source, exporter = _written(work, opset=params.opset)
    reached = int(model.opset_imports.get("", 0))
    if reached != params.opset:
        work.journal.warning(
            f"The exporter wrote operator set {reached}: not all operators can be had in {params.opset}."
        )
    renamed = name_ports(model, work.signature)
    for name in renamed:
        work.journal.info(f"“{name}” was also the name of an inner value, which was renamed.")
    name_dimensions(model, work.signature)
    _forget_origins(model)
    _refuse_large(model)
    write(ir.to_proto(model), work.output)
    nodes = len(model.graph)
    work.journal.info(f"Exported {nodes:,} nodes with operator set {reached}.")
    compared = parity.compare(source, work)
    for row in compared:
        work.journal.info(
            f"Batch {row.batch}, free dimensions {row.size}: differs by at most {row.largest:.1e} from the source."
        )
    return {
        "opset": reached,
        "exporter": exporter,
        "renamed": renamed,
        "parity": [row.to_json() for row in compared],
    }


def _written(work: Work, *, opset: int) -> tuple[Any, Session, str]:
    """An `onnx_ir.Model`, what it is compared with, and who wrote it."""
    if work.input_format == "torchscript":
        opened = torch_script.open_script(work.input)
        return script.exported(opened, work, opset=opset), opened, "torch.onnx, TorchScript"
    if work.input_format == "sklearn":
        fitted = sklearn_model.open_model(work.input)
        return sklearn.exported(fitted, work, opset=opset), fitted, "skl2onnx"
    program, source = _opened(work)
    return _export(program, opset=opset).model, source, "torch.onnx, dynamo"


def _opened(work: Work) -> tuple[Any, Session]:
    """What the exporter takes, and what its result is compared with."""
    if work.input_format == "transformers":
        module = transformers_model.built(work.input)
        transformers_model.write_attention_out(module)
        return transformers_model.program(module, work.signature), transformers_model.Model(module)
    program = torch_program.exported(work.input)
    _refuse_training(program)
    return program, torch_program.Program(program)


def _refuse_training(program: Any) -> None:
    """What is only on while a model learns makes an answer depend on chance or on the rest of its batch."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or schema.name not in TRAINED:
            continue
        names = [argument.name for argument in schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | node.kwargs
        if given.get("p") == 0 or given.get("running_mean", ...) is None:
            continue  # drops nothing, or has no statistics but those of the batch
        if given.get("train") or given.get("training"):
            raise Unprocessable(
                "training_mode",
                "The program was exported in training mode.",
                f"“{node.name}” is on only while a model learns. Call `eval()` on the model before `torch.export`.",
            )


def _export(program: Any, *, opset: int) -> Any:
    """Where the exporter fails it gets the program in core operators: what it decomposes itself, it does without regard
    to how values lie in memory, and then cannot view them (T5, Swin)."""
    import torch

    # What it could not find of torchvision is no news in the log of a job.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    write = partial(torch.onnx.export, dynamo=True, opset_version=opset, external_data=False, verbose=False)
    with warnings.catch_warnings(action="ignore"):
        try:
            return write(program)
        except Exception as error:  # the exporter has its own, torch has its own
            pass_on(error)
            try:
                return write(program.run_decompositions())
            except Exception as again:  # noqa: BLE001  the first says more
                pass_on(again)
            cause = error.__cause__ or error
            raise Unprocessable(
                "not_exportable", "PyTorch cannot write this model as ONNX.", first_line(cause)
            ) from error


def name_ports(model: Any, signature: Signature) -> list[str]:
    """Gives inputs and outputs the names of the signature. Returns those that an inner value had to give up."""
    graph = model.graph
    _separate(graph)
    wanted = {
        id(value): spec.name
        for values, specs in ((graph.inputs, signature.inputs), (graph.outputs, signature.outputs))
        for value, spec in zip(values, specs, strict=True)
    }
    names = set(wanted.values())
    taken = {value.name for value in _values(graph)} | names
    gave_way = []
    for value in _values(graph):
        if id(value) not in wanted and value.name in names:
            gave_way.append(value.name)
            value.name = next(
                name for number in range(len(taken) + 1) if (name := f"{value.name}_{number}") not in taken
            )
            taken.add(value.name)
    ports = [*graph.inputs, *graph.outputs]
    for number, value in enumerate(ports):  # first out of each other's way
        value.name = f"slipway_port_{number}"
    for value in ports:
        value.name = wanted[id(value)]
    return sorted(gave_way)


def _separate(graph: Any) -> None:
    """An output that is an input, a weight or given twice gets a node of its own, so that it can have a name."""
    import onnx_ir as ir  # type: ignore[import-not-found, unused-ignore]

    seen = {id(value) for value in graph.inputs}
    for index, value in enumerate(list(graph.outputs)):
        if id(value) in seen or value.producer() is None:
            node = ir.node("Identity", [value])
            (output,) = node.outputs
            output.shape, output.type = value.shape, value.type
            graph.append(node)
            graph.outputs[index] = output
        else:
            seen.add(id(value))


def _values(graph: Any) -> Iterator[Any]:
    """Every named value, those of subgraphs included."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph.all_nodes():
        yield from node.outputs


def name_dimensions(model: Any, signature: Signature) -> None:
    """Free dimensions are called as the signature calls them, everywhere in the graph."""
    import onnx_ir as ir  # type: ignore[import-not-found, unused-ignore]

    graph = model.graph
    names: dict[str, str] = {}
    for values, specs in ((graph.inputs, signature.inputs), (graph.outputs, signature.outputs)):
        for value, spec in zip(values, specs, strict=True):
            if value.shape is None or len(value.shape) != len(spec.shape):
                continue
            for dimension, size in zip(value.shape, spec.shape, strict=True):
                if isinstance(size, str) and not isinstance(dimension, int) and dimension.value:
                    names.setdefault(str(dimension.value), size)
    for value in _values(graph):
        if value.shape is not None:
            value.shape = ir.Shape(
                [
                    dimension
                    if isinstance(dimension, int)
                    else names.get(str(dimension.value), dimension.value)
                    for dimension in value.shape
                ]
            )


def _forget_origins(model: Any) -> None:
    """Where in whose source a node came from is nobody's business, and differs from machine to machine."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in _values(model.graph):
        value.metadata_props.clear()
        value.doc_string = None


def _refuse_large(model: Any) -> None:
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    if size > MAX_BYTES:
        raise Unprocessable(
            "too_large_for_one_file",
            "The model is too large for one ONNX file.",
            f"Its weights have {size / 1024**3:.1f} GiB; {MAX_BYTES / 1024**3:.1f} GiB fit.",
        )
