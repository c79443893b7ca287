"""The targets that exist: where replicas can run.

`of(row)` is the target itself. Another package adds a kind through the entry-point group `slipway.targets`; its row
names a callable that takes the settings and the sealed secret of a target and gives it.
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from controlplane.core.plugins import Entry, PluginTable

if TYPE_CHECKING:
    from deployments.targets.port import Target

MOST_OPEN = 256


class Row(Protocol):
    """What a target is opened from; the model's row is one."""

    kind: str
    settings: Any
    secret: Any


TABLE: "PluginTable[Callable[[Mapping[str, Any], bytes], Target]]" = PluginTable(
    group="slipway.targets",
    entries=(
        Entry(key="local", label="This machine", path="deployments.targets.local.target:open_target"),
        Entry(
            key="kubernetes",
            label="Kubernetes",
            path="deployments.targets.kubernetes.opening:open_target",
        ),
        Entry(
            key="memory",
            label="Memory (a twin for tests)",
            path="deployments.targets.memory:open_target",
        ),
    ),
)


def of(row: Row) -> "Target":
    """Opened on first use in this process, and anew when its settings change. Raises KeyError for a kind that no row
    has, and what opening raises."""
    return _opened(row.kind, json.dumps(row.settings, sort_keys=True), bytes(row.secret or b""))


def forget() -> None:
    """Opens every target anew: for tests, whose servers come and go."""
    _opened.cache_clear()


@lru_cache(maxsize=MOST_OPEN)
def _opened(kind: str, settings: str, secret: bytes) -> "Target":
    return TABLE.load(kind)(json.loads(settings), secret)
