"""Prints what some extras of pyproject.toml name, for a lock that holds nothing else.

`uv pip compile --extra` always adds the project's own dependencies; a replica's image has no use for them.
"""

import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def requirements(extra: str) -> list[str]:
    """Raises KeyError for an extra that pyproject.toml does not have."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return list(project["optional-dependencies"][extra])


if __name__ == "__main__":
    print("\n".join(line for extra in sys.argv[1:] for line in requirements(extra)))
