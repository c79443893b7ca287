"""TorchScript to ONNX: PyTorch's older exporter, the only one that takes it."""

import warnings
from pathlib import Path
from typing import Any

from controlplane.core.errors import SlipwayError, Unprocessable
from optimizer.techniques.port import Work
from optimizer.workbench.session import first_line, pass_on
from optimizer.workbench.signature import Feed
from optimizer.workbench.torch_script import Script

BATCH, SIZE = 2, 16
"""What free dimensions have in the example; the exporter keeps them free."""


def exported(script: Script, work: Work, *, opset: int) -> Any:
    """An `onnx_ir.Model` whose ports have names of their own. Raises Unprocessable: `script_fails`,
    `not_exportable`, and `signature_differs` where the script is not what is said of it."""
    import onnx_ir as ir  # type: ignore[import-not-found, unused-ignore]
    import torch
    from torch.onnx._constants import ONNX_TORCHSCRIPT_EXPORTER_MAX_OPSET as NEWEST

    inputs = work.signature.inputs
    feed = {spec.name: _example(spec) for spec in inputs}
    names = [f"slipway_in_{number}" for number in range(len(inputs))]
    free = {
        name: {axis: size for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for name, spec in zip(names, inputs, strict=True)
    }
    target = Path(work.scratch) / "script.onnx"
    _run(script, feed)
    try:
        with warnings.catch_warnings(action="ignore"):
            torch.onnx.export(
                script.module,
                tuple(torch.from_numpy(array) for array in feed.values()),
                str(target),
                dynamo=False,
                opset_version=min(opset, NEWEST),
                input_names=names,
                dynamic_axes=free,
            )
    except Exception as error:  # the exporter has its own, torch has its own
        pass_on(error)
        raise Unprocessable(
            "not_exportable", "PyTorch cannot write this script as ONNX.", first_line(error)
        ) from error
    return ir.load(str(target))


def _run(script: Script, feed: Feed) -> None:
    try:
        script.run([], feed)
    except SlipwayError:
        raise
    except Exception as error:  # torch and the script raise their own
        pass_on(error)
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
        last = (str(error).strip() or type(error).__name__).splitlines()[
            -1
        ]  # after the script's own traceback
        raise Unprocessable(
            "script_fails",
            "The script fails when it is run.",
            f"With {shapes}: {last[:500]}",
        ) from error


def _example(spec: Any) -> Any:
    import numpy as np

    free = iter([BATCH] + [SIZE] * len(spec.shape))
    shape = [next(free) if isinstance(size, str) else size for size in spec.shape]
    return np.zeros(shape, spec.numpy_dtype)
