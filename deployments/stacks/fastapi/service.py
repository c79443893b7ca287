"""What one replica is doing: whether new requests are welcome, and who is being served.

Three moments: starting (live, not ready), ready, draining (not ready, but still serving whoever comes). Only
`replica` moves it from one to the next.
"""

import asyncio
import time

from deployments.stacks.fastapi.batcher import Batcher
from deployments.stacks.fastapi.config import ReplicaConfig
from deployments.stacks.fastapi.engine import Engine
from deployments.stacks.fastapi.load import Load
from deployments.stacks.fastapi.metrics import Metrics
from deployments.stacks.fastapi.protocol import Codec

_NOTHING = Load(waiting=0, in_flight=0, waiting_seconds=0.0, in_flight_seconds=0.0)


class Service:
    """Used on the event loop only."""

    def __init__(self, config: ReplicaConfig) -> None:
        self.config = config
        self.metrics = Metrics(
            {"deployment": config.deployment, "revision": config.revision, "replica": config.replica}
        )
        self.codec = Codec(
            model_name=config.model_name, model_version=config.model_version, signature=config.signature
        )
        self.batcher: Batcher | None = None
        self.draining = False
        self.serving = 0
        self._quiet_since = time.monotonic()

    @property
    def ready(self) -> bool:
        return self.batcher is not None and not self.draining

    def open(self, engine: Engine) -> None:
        """From now on this replica is ready."""
        self.batcher = Batcher(
            batching=self.config.batching,
            run=engine.run,
            ran=self.metrics.ran,
            loop=asyncio.get_running_loop(),
        )

    def came(self) -> None:
        self.serving += 1

    def went(self) -> None:
        self.serving -= 1
        self._quiet_since = time.monotonic()

    def quiet_s(self) -> float:
        """For how long nobody has been served; 0 while somebody is."""
        return 0.0 if self.serving else time.monotonic() - self._quiet_since

    def page(self) -> bytes:
        load = _NOTHING if self.batcher is None else self.batcher.load()
        return self.metrics.page(load, ready=self.ready)
