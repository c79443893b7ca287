"""The targets that exist: where replicas can run.

`load("local")` is the target itself, opened from the settings of this process. Another package adds a
target through the entry-point group `slipway.targets`; its row names a callable that takes nothing and gives
a target.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from controlplane.core.plugins import Entry, PluginTable

if TYPE_CHECKING:
    from deployments.targets.port import Target

TABLE: "PluginTable[Callable[[], Target]]" = PluginTable(
    group="slipway.targets",
    entries=(
        Entry(key="local", label="This machine", path="deployments.targets.local.target:open_target"),
        Entry(
            key="memory",
            label="Memory (a twin for tests)",
            path="deployments.targets.memory:open_target",
        ),
    ),
)


@cache
def load(key: str) -> "Target":
    """The target of this process, opened on first use. Raises KeyError for a key that no row has."""
    return TABLE.load(key)()
