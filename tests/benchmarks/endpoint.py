"""An endpoint without a control plane: the node, its data proxy and replicas of the benchmark's model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deployments.domain.workload import Batching, TargetStatus, Workload
from tests.benchmarks.model import Made, mlp
from tests.deployments.targets.conftest import Node, make_home

KEY = "d1"
UNBATCHED = Batching(max_batch_size=1, max_queue_delay_microseconds=0, max_queue_size=10_000)


@dataclass(kw_only=True)
class Endpoint:
    node: Node
    model: Made
    generation: int = 0

    @property
    def url(self) -> str:
        """Through the proxy."""
        return self.node.infer_url(KEY)

    def run(self, *, replicas: int, batching: Batching) -> TargetStatus:
        """Puts replicas of the next revision in the place of what ran; returns once they alone are ready."""
        self.generation += 1
        workload = self.workload(revision=self.generation, replicas=replicas, batching=batching)
        self.node.target.apply(self.node.wish(workload, key=KEY, generation=self.generation))
        revision = self.generation
        return self.node.until(
            KEY,
            lambda seen: seen.ready(revision) == replicas == len(seen.replicas),
            within_s=60,
        )

    def workload(self, *, revision: int, replicas: int, batching: Batching) -> Workload:
        return self.node.workload(
            revision,
            replicas,
            stack="fastapi",
            artifact_path=str(self.model.path),
            artifact_sha256=self.model.sha256,
            signature=self.model.signature,
            batching=batching,
        )

    def direct(self, seen: TargetStatus) -> tuple[str, ...]:
        """Past the proxy."""
        return tuple(f"{one.url}/v2/models/m/infer" for one in seen.replicas)


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    node = Node(home=make_home(), stand_in=False)
    try:
        node.start()
        yield Endpoint(node=node, model=mlp(node.home))
    finally:
        node.clean_up()
