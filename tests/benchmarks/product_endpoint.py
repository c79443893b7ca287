"""An endpoint as a user has it: the whole product runs, the benchmark's model was registered and rolled out by API."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from controlplane.embedded.demo.client import Api
from deployments.domain.workload import TargetStatus
from deployments.targets.local.client import NodeClient
from deployments.targets.local.target import LocalTarget
from tests.benchmarks.model import mlp
from tests.product import Product, running_product

MODEL = DEPLOYMENT = "bench"
LOOK_S = 0.03


@dataclass(kw_only=True)
class Served:
    """`key` is the deployment's name on the node."""

    product: Product
    api: Api
    node: LocalTarget
    database: "psycopg.Connection[Any]"
    key: str = ""

    @property
    def url(self) -> str:
        address = self.api.get(f"deployments/{DEPLOYMENT}/")["address"]
        return f"{address}/v2/models/{MODEL}/infer"

    def seen(self) -> TargetStatus:
        """What the node says now."""
        return self.node.observe(self.key)

    def until_ready(self, replicas: int, *, within_s: float = 60) -> TargetStatus:
        """Exactly so many are ready, and none is on its way in or out."""
        deadline = time.monotonic() + within_s
        while not (seen := self.seen()).ready() == replicas == len(seen.replicas):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{replicas} replicas were not ready in {within_s:.0f} s: {seen}")
            time.sleep(LOOK_S)
        return seen

    def add_revision(self, spec: Mapping[str, Any]) -> int:
        wanted = {"model": MODEL, "version": 1, "variant": 0, "spec": dict(spec)}
        return int(self.api.post(f"deployments/{DEPLOYMENT}/revisions/", wanted)["revision"])

    def roll_out(self, revision: int, *, verb: str = "rollouts") -> None:
        """Returns when the rollout succeeded. `verb` may be "rollback"."""
        started = self.api.post(f"deployments/{DEPLOYMENT}/{verb}/", {"revision": revision}, If_Match="*")
        path = f"deployments/{DEPLOYMENT}/rollouts/{started['id']}/"
        ended = self.api.wait(path, lambda seen: seen["finished_at"] is not None, within_s=120)
        assert ended["state"] == "succeeded", ended["message"]

    def pause_autoscaling(self, paused: bool) -> None:
        self.api.put(f"deployments/{DEPLOYMENT}/autoscaling/", {"paused": paused})

    def scale(self, replicas: int) -> None:
        self.api.post(f"deployments/{DEPLOYMENT}/scale/", {"replicas": replicas})


@contextmanager
def served(spec: Mapping[str, Any]) -> Iterator[Served]:
    """Revision 1 with this spec is live when the block begins."""
    with (
        running_product() as product,
        tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder,
        psycopg.connect(product.up.database_url, autocommit=True) as database,
    ):
        node = LocalTarget(NodeClient(product.up.node_url, token=product.up.node_token))
        api = Api(url=product.up.url, token=product.token())
        found = Served(product=product, api=api, node=node, database=database)
        api.post("models/", {"name": MODEL})
        api.upload(f"models/{MODEL}/versions/upload/?filename=mlp.onnx", mlp(Path(folder)).path.read_bytes())
        api.post("deployments/", {"name": DEPLOYMENT})
        row = database.execute("SELECT id FROM deployments_deployment").fetchone()
        assert row is not None
        found.key = f"d{row[0]}"
        found.roll_out(found.add_revision(spec))
        yield found
