"""A database of Redis for each file: other tests write sheets of their own at the same time."""

import os
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from tests.certificates import Authority

_DATABASES = {"test_book": 9, "test_server": 10, "test_process": 11}


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    database = _DATABASES[request.path.stem]
    return urlsplit(os.environ["REDIS_URL"])._replace(path=f"/{database}").geturl()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, socket_timeout=3) as client:
        await client.flushdb()
        yield client


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs the front proxy's certificates, and the server's."""
    return Authority.make(tmp_path_factory.mktemp("authority"), called="cluster")


@pytest.fixture(scope="session")
def another_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("another"), called="another")
