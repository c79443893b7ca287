"""A cluster whose pods change, the collector that follows it, and one open page. A child that prints JSON.

The collector, the tables and the event stream are the product's; the cluster is the fake (`-`) or a kubeconfig's.
"""

import asyncio
import http.client
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

EVENTS, WARM_UP = 30, 3
LONGEST_S = 30.0
SEED = 20261124
NAMESPACE = "ml"


class Page:
    """An open page: `ticks` are the moments at which something was said of its topic."""

    def __init__(self, port: int, *, topic: str, cookie: str) -> None:
        self.ticks: list[float] = []
        self.moved = threading.Condition()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._connection.request("GET", f"/live/events?topics={topic}", headers={"Cookie": cookie})
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.read()
        threading.Thread(target=self._read, args=(topic.encode(),), daemon=True).start()

    def _read(self, topic: bytes) -> None:
        for line in self._answer:
            if topic in line:
                with self.moved:
                    self.ticks.append(time.monotonic())
                    self.moved.notify_all()

    def next_after(self, moment: float) -> float:
        with self.moved:
            found = self.moved.wait_for(lambda: self.ticks and self.ticks[-1] >= moment, timeout=LONGEST_S)
            assert found, f"no tick within {LONGEST_S:g} s"
            return next(tick for tick in self.ticks if tick >= moment)

    def quiet_for(self, seconds: float) -> None:
        with self.moved:
            while self.moved.wait(seconds):
                continue


def main(live_port: int, kubeconfig: str) -> list[float]:
    from django.test import Client

    from controlplane.core import sealing
    from deployments import services
    from deployments.models import Target
    from deployments.targets.kubernetes import opening
    from deployments.targets.kubernetes.api import Api
    from deployments.targets.kubernetes.kinds import POD
    from tests import factories
    from tests.deployments.targets.kubernetes import kubelet
    from tests.deployments.targets.kubernetes.room import Room, cluster_workload
    from tests.deployments.targets.kubernetes.test_target import rolled, wish

    with ExitStack() as stack:
        text = "a kubeconfig" if kubeconfig == "-" else Path(kubeconfig).read_text()
        api = _fake(stack) if kubeconfig == "-" else Api(opening.kubeconfig.read(text))
        room = Room(api, namespace=NAMESPACE).start()
        stack.callback(room.stop)
        owner = factories.member(factories.team())
        row = Target.objects.create(
            team=owner.team, name="prod", kind="kubernetes",
            settings={"namespace": NAMESPACE}, secret=sealing.seal(text),
        )  # fmt: skip
        deployment, _ = services.create_deployment(owner, name="scorer", target=row)
        room.target.apply(wish(deployment.key, cluster_workload(1, 2)))
        pod = room.until(deployment.key, rolled(2)).replicas[0].name
        room.kubelet.paused = True
        _collector(stack)
        client = Client()
        client.force_login(owner.user)
        session = f"sessionid={client.cookies['sessionid'].value}"
        page = Page(live_port, topic=f"deployment:{deployment.pk}", cookie=session)
        page.quiet_for(5.0)

        def change(number: int) -> None:
            play = kubelet.hanging if number % 2 == 0 else kubelet.ready
            status = play(api.get(POD, pod, NAMESPACE), 1)
            api.merge(POD, pod, NAMESPACE, {"status": status}, part="status")

        return list(_latencies(page, change))


def _latencies(page: Page, change: Callable[[int], None]) -> Iterator[float]:
    """From the moment before the cluster is told to the tick; at any phase of the collector's period."""
    phases = random.Random(SEED)
    for number in range(WARM_UP + EVENTS):
        time.sleep(phases.uniform(0.5, 2.5))
        began = time.monotonic()
        change(number)
        took_s = page.next_after(began) - began
        if number >= WARM_UP:
            yield took_s


def _fake(stack: ExitStack) -> "Api":  # noqa: F821
    """Every cluster of this process is the fake: its address is http, which no kubeconfig may name."""
    from deployments.targets.kubernetes import opening
    from deployments.targets.kubernetes.api import Api
    from tests.deployments.targets.kubernetes.fake import RunningFake

    fake = RunningFake().start()
    stack.callback(fake.stop)
    opening.connection = lambda settings, secret: fake.connection  # type: ignore[assignment]
    return Api(fake.connection)


def _collector(stack: ExitStack) -> None:
    from django.conf import settings
    from redis.asyncio import Redis

    from deployments.collector import Collector

    loop, stopping = asyncio.new_event_loop(), asyncio.Event()

    async def collect() -> None:
        redis = Redis.from_url(settings.ENVIRONMENT.redis_url, socket_timeout=0.5)
        await Collector(redis=redis).run(stopping)
        await redis.aclose()

    thread = threading.Thread(target=loop.run_until_complete, args=(collect(),))
    thread.start()
    stack.callback(thread.join)
    stack.callback(loop.call_soon_threadsafe, stopping.set)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    import django

    django.setup()
    print(json.dumps(main(int(sys.argv[1]), sys.argv[2])))
