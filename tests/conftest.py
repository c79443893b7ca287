"""How `make test` shares the suite out: what is dear to set up is set up once, what takes long begins early.

A file stays on one worker, and all of the browser's files share one running product. Faults are mostly waited for, so
their files are spread among others, which use the processor meanwhile. Property tests have no deadlines: on a shared
machine those would time the neighbours. Refused: `--dist loadgroup`, which shares out single tests without a word where
pytest is newer than it knows (pytest-xdist issue 1386).
"""

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.hashers import ScryptPasswordHasher
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

HERE = Path(__file__).parent
BROWSER, WAITING = "browser", "faults"
EARLY = 0.6
"""The last that waits begins after this share of the others."""

# Scrypt as it is, at a price that is no defence; the processes of a running product keep theirs.
ScryptPasswordHasher.work_factor = 2**4

settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """After the order was shuffled."""
    paths = list(dict.fromkeys(item.path for item in items))
    waiting = [path for path in paths if _folder(path) == WAITING]
    others = [path for path in paths if _folder(path) not in (BROWSER, WAITING)]
    step = EARLY * len(others) / max(1, len(waiting))
    places = {path: float(place) for place, path in enumerate(others)}
    places |= {path: place * step - 0.5 for place, path in enumerate(waiting)}
    items.sort(key=lambda item: places.get(item.path, -1.0))


def _folder(path: Path) -> str:
    return path.relative_to(HERE).parts[0]


class _ByFile(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return BROWSER if nodeid.startswith(f"{HERE.name}/{BROWSER}/") else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _ByFile(config, log)
