"""TorchScript as a report runs it, and as ONNX export takes it. Needs the toolchain `torch`.

Opening one runs code that came with it. Only versions that an admin trusts come here, and only in the sandbox.
"""

import io
import json
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.torch_script import SCRIPT, SIGNATURE
from optimizer.workbench.session import first_line, pass_on
from optimizer.workbench.signature import Array, Feed, Signature, TensorSpec


class Script:
    """Takes the inputs in the order of the signature, and names the answers in the order of its outputs."""

    def __init__(self, module: Any, signature: Signature) -> None:
        self.module = module
        self._signature = signature

    def run(self, outputs: Sequence[str], feed: Feed, /) -> list[Array]:
        """Raises Unprocessable("signature_differs") where an answer is not what the signature says."""
        import torch
        from torch.utils import _pytree

        given = [torch.from_numpy(np.ascontiguousarray(feed[spec.name])) for spec in self._signature.inputs]
        with torch.inference_mode():
            answers = _pytree.tree_leaves(self.module(*given))
        if len(answers) != len(self._signature.outputs):
            declared = len(self._signature.outputs)
            raise _differs(f"it answers {len(answers)} tensors, and {declared} are declared")
        found = {
            spec.name: _as_declared(answer, spec)
            for spec, answer in zip(self._signature.outputs, answers, strict=True)
        }
        return [found[name] for name in outputs]


def load_runtime() -> None:
    import torch  # noqa: F401


def _as_declared(answer: Any, spec: TensorSpec) -> Array:
    array: Array = answer.numpy()
    fixed = zip(array.shape, spec.shape, strict=False)
    fits = len(array.shape) == len(spec.shape) and all(size in {has, str(size)} for has, size in fixed)
    if array.dtype != spec.numpy_dtype or not fits:
        raise _differs(
            f"“{spec.name}” is {array.dtype} {list(array.shape)}, not {spec.dtype} {list(spec.shape)}"
        )
    return array


def _differs(how: str) -> Unprocessable:
    return Unprocessable(
        "signature_differs",
        "The script is not what its signature.json says.",
        f"{how[0].upper()}{how[1:]}. Upload it again with the right signature.",
    )


def open_script(path: Path, *, threads: int = 1) -> Script:
    """Raises Unprocessable("model_does_not_open"). Sets the threads of the whole process."""
    import torch

    torch.set_num_threads(threads)
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings(action="ignore"):
            signature = Signature.from_json(json.loads(archive.read(SIGNATURE)))
            module = torch.jit.load(io.BytesIO(archive.read(SCRIPT)), map_location="cpu").eval()
    except Exception as error:  # whatever a damaged archive makes torch raise
        pass_on(error)
        raise Unprocessable(
            "model_does_not_open", "PyTorch cannot open this script.", first_line(error)
        ) from error
    return Script(module, signature)
