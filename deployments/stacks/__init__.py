"""The serving stacks that exist. `load("fastapi")` is a stack's description (see `port.Stack`).

Another package adds a stack through the entry-point group `slipway.stacks`; its row names the object itself.
"""

from typing import TYPE_CHECKING

from controlplane.core.plugins import Entry, PluginTable

if TYPE_CHECKING:
    from deployments.stacks.port import Stack

TABLE: "PluginTable[Stack]" = PluginTable(
    group="slipway.stacks",
    entries=(
        Entry(key="fastapi", label="FastAPI", path="deployments.stacks.fastapi.stack:STACK"),
        Entry(key="triton", label="Triton", path="deployments.stacks.triton.stack:STACK"),
    ),
)


def served() -> list[str]:
    """The formats that some stack serves."""
    return list(dict.fromkeys(format for key in TABLE for format in load(key).formats))


def served_here() -> list[str]:
    """Those of them that a stack serves where replicas are processes of a machine."""
    return list(dict.fromkeys(format for stack in _all() if stack.runs_here for format in stack.formats))


def serving(format: str) -> "list[Stack]":
    """The stacks that take the format, in the order of the table."""
    return [stack for stack in _all() if format in stack.formats]


def only_elsewhere(format: str) -> str:
    """Who serves a format that no machine of ours can, and where, as a clause; empty for every other format."""
    able = serving(format)
    if not able or any(stack.runs_here for stack in able):
        return ""
    names = " or ".join(stack.label for stack in able)
    gpu = " with a GPU" if all(format in stack.gpu_formats for stack in able) else ""
    return f"{names} serves it, on a Kubernetes cluster{gpu}"


def _all() -> "list[Stack]":
    return [load(key) for key in TABLE]


def load(key: str) -> "Stack":
    """Raises KeyError for a key that no row has."""
    return TABLE.load(key)
