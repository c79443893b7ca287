"""A database of Redis for each file: other tests write sheets of their own at the same time."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from controlplane.settings.environment import REPOSITORY
from tests.certificates import Authority

NO_DATABASE = "postgresql://nobody:none@127.0.0.1:1/none"
_DATABASES = {"test_book": 9, "test_server": 10, "test_process": 11, "test_hpa": 12}


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    database = _DATABASES[request.path.stem]
    return urlsplit(os.environ["REDIS_URL"])._replace(path=f"/{database}").geturl()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, socket_timeout=3) as client:
        await client.flushdb()
        yield client


@contextmanager
def metrics_api(home: Path, **environment: str) -> "Iterator[subprocess.Popen[str]]":
    """`manage.py metrics_api` as it is started: with Redis, certificates and no database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLIPWAY_METRICS")}
    process = subprocess.Popen(
        [sys.executable, "manage.py", "metrics_api"],
        cwd=REPOSITORY,
        env=kept | {"SLIPWAY_HOME": str(home), "DATABASE_URL": NO_DATABASE} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def address_of(process: "subprocess.Popen[str]") -> str:
    """As its log says once it listens."""
    assert process.stderr is not None
    for line in process.stderr:
        if "event=listening" in line:
            return next(part for part in line.split() if part.startswith("address=")).removeprefix("address=")
    raise AssertionError("it ended")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs the front proxy's certificates, and the server's."""
    return Authority.make(tmp_path_factory.mktemp("authority"), called="cluster")


@pytest.fixture(scope="session")
def another_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("another"), called="another")
