"""The fake cluster with many deployments in it, in a process of its own so that its CPU is not the product's.

Prints its address. One deployment is rolled out; the others are copies of its objects under other names.
"""

import json
import signal
import sys

from deployments.domain.workload import DesiredDeployment
from deployments.targets.kubernetes.api import Api
from tests.deployments.targets.kubernetes.fake import FakeCluster, RunningFake
from tests.deployments.targets.kubernetes.room import Room, cluster_workload
from tests.deployments.targets.kubernetes.test_target import rolled, wish

NAMESPACE, FIRST, REPLICAS = "ml", "d0000", 3


def name(number: int) -> str:
    return f"d{number:04}"


def main(deployments: int) -> None:
    fake = RunningFake().start()
    room = Room(Api(fake.connection), namespace=NAMESPACE, fake=fake).start()
    room.target.apply(_wish(0))
    room.until(FIRST, rolled(REPLICAS))
    room.stop()
    rendered = [
        [one["metadata"]["name"] for one in room.target._render(_wish(n))] for n in range(deployments)
    ]
    fake.call(lambda: _copy(fake.cluster, rendered))
    print(fake.url, flush=True)
    signal.sigwait({signal.SIGTERM})
    fake.stop()


def _wish(number: int) -> DesiredDeployment:
    return wish(name(number), cluster_workload(1, REPLICAS))


def _copy(cluster: FakeCluster, rendered: list[list[str]]) -> None:
    """`rendered` are the names of each deployment's objects, some of which end with a digest of what is in them."""
    mine = {key: one for key, one in cluster.objects.items() if FIRST in key[2] and key[0] != "events"}
    uids = {one["metadata"]["uid"] for one in mine.values() if "uid" in one["metadata"]}
    for number, names in enumerate(rendered[1:], start=1):
        renamed = dict(zip(rendered[0], names, strict=True)) | {FIRST: name(number)}
        renamed |= {uid: f"{uid}-{number}" for uid in uids}
        longest_first = sorted(renamed, key=len, reverse=True)

        def as_its_own(text: str, renamed: dict[str, str] = renamed, order: list[str] = longest_first) -> str:
            for before in order:
                text = text.replace(before, renamed[before])
            return text

        for (plural, namespace, called), one in mine.items():
            cluster.objects[plural, namespace, as_its_own(called)] = json.loads(as_its_own(json.dumps(one)))


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main(int(sys.argv[1]))
