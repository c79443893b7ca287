"""How `make test` shares the suite out: what is dear to set up is set up once, and what takes long begins first.

A file stays on one worker, and all of the browser's files share one running product. Property tests have no
deadlines: on a shared machine those would time the neighbours. Refused: `--dist loadgroup`, which shares out single
tests without a word where pytest is newer than it knows (pytest-xdist issue 1386).
"""

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.hashers import ScryptPasswordHasher
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

HERE = Path(__file__).parent
LONG = ("browser", "faults")
BROWSER = f"{HERE.name}/browser/"

# Scrypt as it is, at a price that is no defence; the processes of a running product keep theirs.
ScryptPasswordHasher.work_factor = 2**4

settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """After the order was shuffled."""
    items.sort(key=lambda item: item.path.relative_to(HERE).parts[0] not in LONG)


class _ByFile(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return BROWSER if nodeid.startswith(BROWSER) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _ByFile(config, log)
