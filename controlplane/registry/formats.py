"""The formats of versions and variants, in the words of pages and refusals. How each is opened is the optimizer's."""

from collections.abc import Mapping
from types import MappingProxyType

ONNX, TORCH, TRANSFORMERS, OPENVINO, TENSORRT = "onnx", "torch", "transformers", "openvino", "tensorrt"
TORCHSCRIPT, SKLEARN = "torchscript", "sklearn"
LABELS: Mapping[str, str] = MappingProxyType(
    {
        ONNX: "ONNX",
        TORCH: "PyTorch program",
        TRANSFORMERS: "Transformers folder",
        TORCHSCRIPT: "TorchScript",
        SKLEARN: "scikit-learn model",
        OPENVINO: "OpenVINO IR",
        TENSORRT: "TensorRT engine",
    }
)
"""The last two are made here; nobody uploads them."""
SUFFIXES: Mapping[str, str] = MappingProxyType(
    {TORCH: "pt2", TRANSFORMERS: "zip", TORCHSCRIPT: "zip", SKLEARN: "skops"}
)
RUN_CODE = frozenset({TORCHSCRIPT})
"""What runs code of its own when it is opened; see `registry.trust`."""
MUST_BE_EXPORTED = frozenset({TORCH, TRANSFORMERS, TORCHSCRIPT, SKLEARN})
"""What no stack serves and only the technique `onnx-export` takes."""
EXPORT_FIRST = "Run the technique onnx-export on it, and use the ONNX variant that this gives."


def label(format: str) -> str:
    return LABELS.get(format, format.upper())


def with_article(format: str) -> str:
    """“a PyTorch program”, “an ONNX model”: what stands behind “this is”."""
    said = label(format)
    noun = said if said.endswith((" program", " folder", " model", " engine")) else f"{said} model"
    return f"{'an' if noun[0] in 'AEIOU' else 'a'} {noun}"
