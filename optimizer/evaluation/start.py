"""Run by path: calls `main` of one of our modules in a process that starts inside the sandbox.

There the folder that holds our packages cannot be listed, so nothing in it is found; the packages can be, and are
loaded by their paths.
"""

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("controlplane", "optimizer")


def command(module: str, *arguments: str, python: Path | None = None) -> list[str]:
    """Arguments of such a process, on another interpreter where one is given. The folder of this script is no place to
    import from (-P)."""
    return [str(python or sys.executable), "-P", __file__, module, *arguments]


def _load(package: str) -> None:
    folder = REPOSITORY / package
    found = spec_from_file_location(package, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert found is not None
    assert found.loader is not None
    sys.modules[package] = module = module_from_spec(found)
    found.loader.exec_module(module)


if __name__ == "__main__":
    for name in PACKAGES:
        _load(name)
    import_module(sys.argv[1]).main(*sys.argv[2:])
