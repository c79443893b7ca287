"""The serving stacks that exist. `load("fastapi")` is a stack's description (see `port.Stack`).

Another package adds a stack through the entry-point group `slipway.stacks`; its row names the object itself.
"""

from typing import TYPE_CHECKING

from controlplane.core.plugins import Entry, PluginTable

if TYPE_CHECKING:
    from deployments.stacks.port import Stack

TABLE: "PluginTable[Stack]" = PluginTable(
    group="slipway.stacks",
    entries=(Entry(key="fastapi", label="FastAPI", path="deployments.stacks.fastapi.stack:STACK"),),
)


def served() -> list[str]:
    """The formats that some stack serves."""
    return list(dict.fromkeys(format for key in TABLE for format in load(key).formats))


def load(key: str) -> "Stack":
    """Raises KeyError for a key that no row has."""
    return TABLE.load(key)
