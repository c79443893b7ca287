"""ONNX export: from PyTorch or scikit-learn to the one format that every other technique and most stacks take."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from optimizer.techniques.port import (
    Device,
    Hardware,
    Kind,
    ModelSummary,
    Parameters,
    Promises,
    Refusal,
    Technique,
)


class ExportParameters(Parameters):
    opset: int = Field(
        default=20,
        ge=18,
        le=23,
        title="Operator set",
        description="The version of ONNX's operators. Older serving software wants a smaller one; 18 is the least "
        "that PyTorch writes.",
    )


def check(
    signature: Mapping[str, Any], summary: ModelSummary, hardware: Hardware, params: Parameters
) -> tuple[Refusal, ...]:
    """What cannot be exported shows only when it is tried."""
    return ()


TECHNIQUE = Technique(
    key="onnx-export",
    label="ONNX export",
    description="Writes the model as one ONNX file with its free dimensions, and compares both at several shapes.",
    takes=tuple(
        Kind(format=key, precision=None) for key in ("torch", "transformers", "torchscript", "sklearn")
    ),
    gives=Kind(format="onnx", precision=None),
    device=Device.CPU,
    parameters=ExportParameters,
    promises=Promises(
        speedup=(1.2, 2.0), loss_points=(0.0, 0.0), effort="Seconds; the step that all others need."
    ),
    check=check,
    entry="optimizer.techniques.onnx_export.run:run",
)
