"""PyTorch programs (`.pt2`) as a report runs them: eager, in inference mode. Needs the toolchain `torch`.

Only files that intake rewrote come here (`registry.intake.torch_archive`); they are read by the archive reader alone,
because `torch.export.load` falls back to an older layout that unpickles.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.torch_program import keys_of
from controlplane.registry.intake.torch_signature import output_names
from optimizer.workbench.session import first_line, pass_on
from optimizer.workbench.signature import Array, Feed


class Program:
    """Answers a feed by name, whatever the nesting of the arguments was."""

    def __init__(self, exported: Any) -> None:
        from torch.utils import _pytree

        self._module = exported.module(check_guards=False)
        self._pytree = _pytree
        self._arguments = _arguments(exported)
        self._nesting = exported.call_spec.in_spec
        tree = _pytree.treespec_dumps(exported.call_spec.out_spec)
        self._outputs = output_names(keys_of(tree), taken=[name for name, _ in self._arguments if name])

    def run(self, outputs: Sequence[str], feed: Feed, /) -> list[Array]:
        import torch

        flat = [
            torch.from_numpy(np.ascontiguousarray(feed[name])) if name else constant
            for name, constant in self._arguments
        ]
        args, kwargs = self._pytree.tree_unflatten(flat, self._nesting)
        with torch.inference_mode():
            answers = self._pytree.tree_leaves(self._module(*args, **kwargs))
        found = dict(zip(self._outputs, answers, strict=True))
        return [found[name].numpy() for name in outputs]


def _arguments(exported: Any) -> list[tuple[str, Any]]:
    """Name of each tensor argument, or an empty one and the constant that was exported, in the order of the leaves."""
    given = [spec.arg for spec in exported.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    return [
        ("", argument.value) if hasattr(argument, "value") else (argument.name, None) for argument in given
    ]


def open_program(path: Path, *, threads: int = 1) -> Program:
    """Raises Unprocessable("model_does_not_open"). Sets the threads of the whole process."""
    import torch

    torch.set_num_threads(threads)
    return Program(exported(path))


def load_runtime() -> None:
    for name in ("torch", "torch.export.pt2_archive._package"):
        import_module(name)


def exported(path: Path) -> Any:
    """The `torch.export.ExportedProgram`. Raises Unprocessable("model_does_not_open")."""
    from torch.export.pt2_archive._package import load_pt2

    try:
        with path.open("rb") as file:
            (program,) = load_pt2(file).exported_programs.values()
    except Exception as error:  # whatever a damaged archive makes torch raise
        pass_on(error)
        raise Unprocessable(
            "model_does_not_open", "PyTorch cannot open this program.", first_line(error)
        ) from error
    return program
