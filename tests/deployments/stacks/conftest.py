from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from . import models
from .replicas import Client, Running, client, configuration, replica

type Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(models.mlp, batching={...})` is a replica that is starting."""
    with ExitStack() as stack:
        count = iter(range(100))

        def started(make: Callable[[Path], models.Made], **overrides: Any) -> Running:
            number = next(count)
            made = make(tmp_path / f"{number}.onnx")
            config = configuration(made, **({"replica": f"d1-3-{number}"} | overrides))
            return stack.enter_context(replica(config, tmp_path))

        yield started


@pytest.fixture(scope="module")
def mlp_replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One ready replica of the MLP for all tests of a module that leave no mark on it."""
    folder = tmp_path_factory.mktemp("mlp")
    config = configuration(models.mlp(folder / "m.onnx"), max_body_bytes=100_000)
    with replica(config, folder) as running:
        yield running.ready()


@pytest.fixture
async def mlp(mlp_replica: Running) -> AsyncIterator[Client]:
    async with client(mlp_replica) as open_client:
        yield open_client
