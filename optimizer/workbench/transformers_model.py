"""Models of transformers as a report runs them: eager PyTorch, in inference mode. Needs the toolchain `torch`.

The architecture comes from the configuration and only from the transformers library; weights are loaded strictly, so
that a layer that nobody trained is not measured as a model.
"""

import json
import os
import zipfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from controlplane.core.errors import Unprocessable
from optimizer.workbench.session import first_line, pass_on
from optimizer.workbench.signature import Array, Feed, Signature


class Model:
    def __init__(self, module: Any) -> None:
        self._module = module

    def run(self, outputs: Sequence[str], feed: Feed, /) -> list[Array]:
        import torch

        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in feed.items()}
        with torch.inference_mode():
            answers = self._module(**tensors)
        return [answers[name].numpy() for name in outputs]


def open_model(path: Path, *, threads: int = 1) -> Model:
    """Raises Unprocessable("model_does_not_open"). Sets the threads of the whole process."""
    import torch

    torch.set_num_threads(threads)
    return Model(built(path))


def load_runtime() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in ("torch", "safetensors.torch", "transformers"):
        import_module(name)


def built(path: Path) -> Any:
    """The `torch.nn.Module` in eval mode, as FP32. Raises Unprocessable: `model_does_not_open` or
    `weights_do_not_fit`."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import safetensors.torch
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with zipfile.ZipFile(path) as archive:
        given = json.loads(archive.read("config.json"))
        weights = archive.read("model.safetensors")
    (architecture,) = given.pop("architectures")
    factory: Any = getattr(transformers, architecture, None)
    if transformers.PreTrainedModel not in getattr(factory, "__mro__", ()):
        raise _does_not_open(f"This version of transformers has no architecture “{architecture}”.")
    try:
        config = factory.config_class.from_dict(given)
        module, loading = factory.from_pretrained(
            None,
            config=config,
            state_dict=safetensors.torch.load(weights),
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception as error:  # what a strange configuration makes it raise
        pass_on(error)
        raise _does_not_open(first_line(error)) from error
    _refuse_unfit(loading)
    return module.eval()


def _refuse_unfit(loading: dict[str, Any]) -> None:
    for key, what in (
        ("missing_keys", "lack"),
        ("mismatched_keys", "have another shape for"),
        ("unexpected_keys", "have, unused,"),
    ):
        names = sorted(str(each[0] if isinstance(each, tuple) else each) for each in loading.get(key) or ())
        if names:
            raise Unprocessable(
                "weights_do_not_fit",
                "The weights do not fit the architecture.",
                f"They {what} {len(names):,} tensors, such as “{names[0][:80]}”. Check “architectures” in config.json.",
            )


def _does_not_open(why: str) -> Unprocessable:
    return Unprocessable("model_does_not_open", "Transformers cannot build this model.", why)


def write_attention_out(module: Any) -> None:
    """From now on as matrix products and a softmax, which every runtime recognizes. PyTorch's one operator for it would
    be exported with guards against words that attend to nothing, and no runtime sees attention in that (ADR 0023)."""
    if module.config._attn_implementation == "sdpa":
        module.set_attn_implementation("eager")


def program(module: Any, signature: Signature) -> Any:
    """Its `torch.export.ExportedProgram` with the signature's inputs, outputs and free dimensions.

    Raises Unprocessable("not_exportable")."""
    import torch

    free = {size for spec in signature.inputs for size in spec.shape if isinstance(size, str)}
    longest = getattr(module.config, "max_position_embeddings", None)
    # Positions of the roberta family begin after the padding token.
    most = {"sequence": max(longest - 2, 2)} if isinstance(longest, int) else {}
    dimensions = {name: torch.export.Dim(name, min=1, max=most.get(name)) for name in sorted(free)}
    example = {
        spec.name: torch.ones(
            [size if isinstance(size, int) else 2 + (size == "sequence") * 5 for size in spec.shape],
            dtype=torch.int64 if spec.dtype == "INT64" else torch.float32,
        )
        for spec in signature.inputs
    }
    shapes = {
        spec.name: {axis: dimensions[size] for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in signature.inputs
    }
    try:
        return torch.export.export(
            _only(module, signature), (), {"feed": example}, dynamic_shapes={"feed": shapes}
        )
    except Exception as error:  # torch.export raises many unrelated types
        pass_on(error)
        raise Unprocessable(
            "not_exportable", "PyTorch cannot trace this model.", first_line(error)
        ) from error


def _only(module: Any, signature: Signature) -> Any:
    """The module with nothing but the signature's outputs, so that a pooler nobody asked for is not exported."""
    import torch

    names = [spec.name for spec in signature.outputs]

    class Only(torch.nn.Module):  # type: ignore[misc, unused-ignore]  # Any where torch is not installed
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, feed: dict[str, Any]) -> dict[str, Any]:
            answers = self.module(**feed)
            return {name: answers[name] for name in names}

    return Only().eval()
