"""scikit-learn to ONNX by skl2onnx, which has a converter for each kind of estimator."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.sklearn_model import INPUT
from optimizer.techniques.port import Work
from optimizer.workbench.session import first_line, pass_on
from optimizer.workbench.sklearn_model import Model

ML_OPSET = 3
"""Of the domain ai.onnx.ml, as every serving stack runs it."""


def exported(model: Model, work: Work, *, opset: int) -> Any:
    """An `onnx_ir.Model` with the outputs of the signature. Raises Unprocessable("not_exportable")."""
    import onnx_ir as ir  # type: ignore[import-not-found, unused-ignore]
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    estimator = model.estimator
    (given,) = work.signature.inputs
    logging.getLogger("skl2onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), _whole_numbers():
            made = skl2onnx.to_onnx(
                estimator,
                initial_types=[(INPUT, FloatTensorType([None, given.shape[-1]]))],
                target_opset={"": min(opset, skl2onnx.__max_supported_opset__), "ai.onnx.ml": ML_OPSET},
                options={"zipmap": False} if hasattr(estimator, "classes_") else None,
            )
    except Exception as error:  # skl2onnx has its own, and its converters raise whatever they meet
        pass_on(error)
        raise Unprocessable(
            "not_exportable", "skl2onnx cannot write this model as ONNX.", first_line(error)
        ) from error
    program = ir.from_proto(made)
    by_name = {value.name: value for value in program.graph.outputs}
    first = program.graph.outputs[0]  # the mean of a Gaussian process is called otherwise
    wanted = [by_name.get(spec.name, first) for spec in work.signature.outputs]
    program.graph.outputs.clear()
    program.graph.outputs.extend(wanted)
    return program


@contextmanager
def _whole_numbers() -> Iterator[None]:
    """Histogram-based boosting gets flags where ONNX has whole numbers, which newer versions of protobuf refuse."""
    from skl2onnx.common import _container

    made = _container.make_node

    def make_node(*given: Any, **attributes: Any) -> Any:
        return made(*given, **{name: _without_flags(value) for name, value in attributes.items()})

    _container.make_node = make_node
    try:
        yield
    finally:
        _container.make_node = made


def _without_flags(value: Any) -> Any:
    return (
        [int(each) if isinstance(each, bool) else each for each in value]
        if isinstance(value, list)
        else value
    )
