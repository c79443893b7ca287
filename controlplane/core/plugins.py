"""The one way plug-ins are found: a table one can read, and entry points for other packages.

A plug-in is a dotted path to an object, imported on first use so that vendor imports stay in the folder
that owns them. Refused: discovery by scanning packages, which runs code nobody listed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of a table: `path` is "package.module:attribute"."""

    key: str
    label: str
    path: str


@dataclass(kw_only=True)
class PluginTable[Plugin]:
    """`group` is the entry-point group through which other packages add rows.

    A row of ours comes first, and wins over an entry point of the same key.
    """

    group: str
    entries: tuple[Entry, ...]
    _loaded: dict[str, Plugin] = field(default_factory=dict)

    def rows(self) -> Mapping[str, Entry]:
        ours = {entry.key: entry for entry in self.entries}
        return ours | {key: entry for key, entry in self._theirs.items() if key not in ours}

    @cached_property
    def _theirs(self) -> dict[str, Entry]:
        """Once: asking what is installed reads a file of every package there is."""
        return {
            point.name: Entry(key=point.name, label=point.name, path=point.value)
            for point in entry_points(group=self.group)
        }

    def __contains__(self, key: str) -> bool:
        return key in self.rows()

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows())

    def load(self, key: str) -> Plugin:
        """Raises KeyError for a key that no row has."""
        if key not in self._loaded:
            module, _, attribute = self.rows()[key].path.partition(":")
            self._loaded[key] = getattr(import_module(module), attribute)
        return self._loaded[key]
