"""The whole product under `manage.py up`, with one endpoint that serves, for tests that kill parts or all of it."""

import http.client
import json
import math
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from controlplane.embedded import procfs
from controlplane.embedded.demo.client import Api
from controlplane.embedded.runtime import Up, running
from controlplane.settings.environment import REPOSITORY
from deployments.domain.spec import default_autoscaling
from deployments.domain.workload import Batching
from deployments.targets.local.client import NodeClient
from deployments.targets.port import Unreachable
from tests.controlplane.embedded.conftest import processes_of
from tests.faults.load import Ask, OpenLoop
from tests.faults.programs import send
from tests.faults.waiting import until
from tests.optimizer import onnx_models
from tests.product import Product, start

READY_WITHIN_S = 90
ROLLOUT_WITHIN_S = 90
STOP_LIMIT_S = 11
"""The issue's ten seconds, and one for looking."""
MODEL = DEPLOYMENT = "tiny"
PER_S = 30


@dataclass(kw_only=True)
class House:
    home: Path
    popen: subprocess.Popen[bytes] | None = None
    token: str = ""

    # Its life

    def start(self) -> None:
        """Returns when the edge answers."""
        self.popen = start("up", home=self.home, log=self.home.parent / "up.log")
        until(self._ready, within_s=READY_WITHIN_S, what="`up` being ready")

    def _ready(self) -> bool:
        assert self.popen is not None
        assert self.popen.poll() is None, self.log()
        up = running(self.home)
        return up is not None and up.ready

    def stop(self) -> float:
        """SIGTERM to `up`; how long it took. AssertionError beyond the limit, or if anything is left."""
        assert self.popen is not None
        began = time.monotonic()
        self.popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(STOP_LIMIT_S)
        assert self.popen.poll() is not None, f"`up` still runs after {STOP_LIMIT_S} s:\n{self.log()}"
        assert processes_of(self.home) == {}
        return time.monotonic() - began

    def kill_everything(self) -> None:
        """SIGKILL to `up` and to all that it and its node started, replicas and proxy included."""
        assert self.popen is not None
        send([self.popen.pid], signal.SIGKILL)

        def nothing_left() -> bool:
            """What was just being started when the others were killed is killed at the next look."""
            send(procfs.belonging(self.home), signal.SIGKILL)
            return processes_of(self.home) == {}

        self.popen.wait(10)
        until(nothing_left, within_s=10, what="the end of everything")

    def running(self) -> "House":
        """Starts it again if a test before has ended it."""
        if self.popen is None or self.popen.poll() is not None:
            self.start()
        return self

    def log(self) -> str:
        return (self.home.parent / "up.log").read_text(errors="replace")[-4000:]

    # What can be seen of it

    @property
    def up(self) -> Up:
        up = running(self.home)
        assert up is not None, self.log()
        return up

    @property
    def api(self) -> Api:
        self.token = self.token or Product(self.home, self.up).token()
        return Api(url=self.up.url, token=self.token)

    @property
    def node(self) -> NodeClient:
        return NodeClient(self.up.node_url, token=self.up.node_token)

    def page(self, path: str = "account/login/") -> int:
        """The status of a page, 0 for none."""
        try:
            with urllib.request.urlopen(self.up.url + path, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def replicas(self) -> list[dict[str, Any]]:
        """As the node sees them now."""
        (found,) = self.node.get("deployments")["deployments"]
        return list(found["replicas"])

    def ready_replicas(self) -> list[dict[str, Any]]:
        return [one for one in self.replicas() if one["state"] == "ready"]

    def serving(self) -> int:
        """How many replicas are ready; 0 while the node is away."""
        try:
            return len(self.ready_replicas())
        except Unreachable:
            return 0

    def routed_ports(self) -> set[int]:
        """The replicas that the data proxy may send requests to, as it says itself."""
        connection = http.client.HTTPConnection("envoy", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.connect(str(self.home / "run" / "node-proxy.sock"))
        try:
            connection.request("GET", "/clusters?format=json")
            document = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return {
            host["address"]["socket_address"]["port_value"]
            for cluster in document["cluster_statuses"]
            for host in cluster.get("host_statuses", ())
        }

    # Its endpoint

    def deploy(self, folder: Path, *, replicas: int) -> None:
        """A small model on two replicas, through the public API, as a user would."""
        path = folder / "tiny.onnx"
        onnx_models.mlp(path)
        self.api.post("models/", {"name": MODEL})
        self.api.upload(f"models/{MODEL}/versions/upload/?filename=tiny.onnx", path.read_bytes())
        self.api.post("deployments/", {"name": DEPLOYMENT})
        self.roll_out(self.revision(replicas=replicas))

    def revision(self, *, replicas: int, **spec: Any) -> int:
        """A new revision of a fixed size."""
        autoscaling = default_autoscaling(min_replicas=replicas, max_replicas=replicas, batching=Batching())
        wanted = {"model": MODEL, "version": 1, "spec": {"autoscaling": autoscaling} | spec}
        return int(self.api.post(f"deployments/{DEPLOYMENT}/revisions/", wanted)["revision"])

    def roll_out(self, revision: int, *, by: str = "rollouts") -> dict[str, Any]:
        """Waits for the end, which is success. `by` is "rollouts" or "rollback"."""
        begun = self.api.post(f"deployments/{DEPLOYMENT}/{by}/", {"revision": revision}, If_Match="*")
        path = f"deployments/{DEPLOYMENT}/rollouts/{begun['id']}/"
        ended: dict[str, Any] = self.api.wait(
            path, lambda seen: seen["finished_at"] is not None, within_s=ROLLOUT_WITHIN_S
        )
        assert ended["state"] == "succeeded", ended
        return ended

    @property
    def asking(self) -> Ask:
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 32], "data": [0.5] * 32}]}
        address = f"http://127.0.0.1:{self.up.data_port}/main/{DEPLOYMENT}"
        return Ask(url=f"{address}/v2/models/{MODEL}/infer", body=orjson.dumps(body))

    def load(self, *, keep_alive: bool = True) -> OpenLoop:
        return OpenLoop(asks=[self.asking], per_s=PER_S, keep_alive=keep_alive)

    def visits(self, *, per_s: float = PER_S, count: float = math.inf) -> OpenLoop:
        """Of a list through the edge; each comes on a connection of its own."""
        ask = Ask(url=f"{self.up.url}api/v1/models/", headers={"Authorization": f"Bearer {self.api.token}"})
        return OpenLoop(asks=[ask], per_s=per_s, count=count, keep_alive=False)


@contextmanager
def house() -> Iterator[House]:
    root = Path(tempfile.mkdtemp(prefix="slipway-house-"))
    home = root / "home"
    home.mkdir()
    vendor = REPOSITORY / ".slipway" / "vendor"
    if vendor.is_dir():
        (home / "vendor").symlink_to(vendor)
    stands = House(home=home)
    try:
        stands.start()
        yield stands
    finally:
        if stands.popen is not None and stands.popen.poll() is None:
            stands.kill_everything()
        shutil.rmtree(root, ignore_errors=True)
