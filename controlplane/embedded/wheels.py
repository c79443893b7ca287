"""Where a wheel unpacked its files, without running its code: importing one of them prints, another is slow."""

from importlib.util import find_spec
from pathlib import Path

from controlplane.embedded.errors import SetupError


def wheel_folder(package: str) -> Path:
    """Raises SetupError where the package is not installed."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SetupError(
            "part_not_installed",
            f"The embedded parts are not installed ({package} is missing): run this through `make up` or `make demo`, "
            "or set DATABASE_URL and REDIS_URL.",
        )
    return Path(next(iter(spec.submodule_search_locations)))
