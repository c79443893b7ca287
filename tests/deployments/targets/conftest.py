"""Real nodes for the tests: each in a home of its own, with everything it started counted at the end."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import psutil
import pytest

from deployments.domain.workload import Batching, DesiredDeployment, TargetStatus, Workload
from deployments.targets.local.client import NodeClient
from deployments.targets.local.ports import is_free
from deployments.targets.local.target import LocalTarget
from deployments.targets.port import Unreachable

NODE = Path(__file__).with_name("node_for_tests.py")
REPOSITORY = Path(__file__).resolve().parents[3]
ARTIFACT = b"not a model, but the bytes that its digest names"


def free_port() -> int:
    ports = list(range(18_000, 19_900))
    random.shuffle(ports)
    return next(port for port in ports if is_free("127.0.0.1", port))


@dataclass(kw_only=True)
class Node:
    """A node process in its own home. `until` waits for events of the node, never for the clock alone."""

    home: Path
    data_port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None
    url: str = ""
    token: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    stand_in: bool = True

    def __post_init__(self) -> None:
        self.artifact.write_bytes(ARTIFACT)
        self.url = self.url or f"unix:{self.home}/run/node.sock"
        self.target = LocalTarget(NodeClient(self.url, token=self.token))

    @property
    def artifact(self) -> Path:
        return self.home / "model.onnx"

    def start(self) -> None:
        self.process = self.popen()
        deadline = time.monotonic() + 15
        while True:
            try:
                self.target.observe_all()
            except Unreachable:
                assert self.process.poll() is None, self.log()
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.02)  # There is nobody to wait for an event of yet.
            else:
                return

    def popen(self) -> "subprocess.Popen[bytes]":
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "SLIPWAY_HOME": str(self.home),
            "SLIPWAY_DATA_PORT": str(self.data_port),
            **({"SLIPWAY_NODE_URL": self.url} if self.url.startswith("http") else {}),
            **({"SLIPWAY_NODE_TOKEN": self.token} if self.token else {}),
        }
        with (self.home / "node.log").open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    *((str(NODE),) if self.stand_in else ("-m", "deployments.targets.local.node")),
                ],
                env=environment | self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self) -> str:
        return (self.home / "node.log").read_text()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> float:
        """SIGTERM; returns how many seconds the node took to end."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)
        return time.monotonic() - began

    def processes(self) -> dict[int, str]:
        """Everything that runs out of this home, by pid: the command's line."""
        found = {}
        for process in psutil.process_iter(["pid", "cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or ())
            if f"{self.home}/" in line and process.info["status"] != psutil.STATUS_ZOMBIE:
                found[process.info["pid"]] = line
        return found

    def health(self) -> dict[str, Any]:
        return NodeClient(self.url, token=self.token).get("health")

    def until(
        self, key: str, holds: Callable[[TargetStatus], bool], *, within_s: float = 20, after: int = 0
    ) -> TargetStatus:
        """The first state that holds; looks again whenever something happened."""
        deadline = time.monotonic() + within_s
        while not holds(status := self.target.observe(key)):
            assert time.monotonic() < deadline, f"{status}\n{self.log()}"
            events = self.target.events(key, after=after, wait_s=min(1, max(0, deadline - time.monotonic())))
            after = events[-1].id if events else after
        return status

    def workload(self, revision: int = 1, replicas: int = 2, **fields: Any) -> Workload:
        given: dict[str, Any] = {
            "revision": revision,
            "replicas": replicas,
            "stack": "stand-in",
            "model_name": "m",
            "model_version": "1",
            "artifact_sha256": hashlib.sha256(ARTIFACT).hexdigest(),
            "artifact_path": str(self.artifact),
            "signature": {"inputs": [], "outputs": [], "batch_axis": 0},
            "batching": Batching(),
        }
        return Workload(**given | fields)

    def model_workload(self, revision: int = 1, replicas: int = 2, **fields: Any) -> Workload:
        """A workload of the real stack: a model that gives back its input."""
        content = _identity_model()
        path = self.home / "identity.onnx"
        path.write_bytes(content)
        given = {
            "stack": "fastapi",
            "artifact_path": str(path),
            "artifact_sha256": hashlib.sha256(content).hexdigest(),
            "signature": {
                "inputs": [{"name": "x", "dtype": "FP32", "shape": ["batch", 4]}],
                "outputs": [{"name": "y", "dtype": "FP32", "shape": ["batch", 4]}],
                "batch_axis": 0,
            },
        }
        return self.workload(revision, replicas, **given | fields)

    def wish(
        self, *workloads: Workload, key: str = "d1", generation: int, **fields: Any
    ) -> DesiredDeployment:
        given: dict[str, Any] = {"path": f"/team/{key}", "drain_s": 5.0} | fields
        return DesiredDeployment(key=key, generation=generation, workloads=workloads, **given)

    def infer_url(self, key: str = "d1") -> str:
        return f"http://127.0.0.1:{self.data_port}/team/{key}/v2/models/m/infer"

    def clean_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.terminate()
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)


def _identity_model() -> bytes:
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    content: bytes = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return content


def make_home() -> Path:
    # Not pytest's tmp_path: a Unix socket's path has room for 107 bytes.
    return Path(tempfile.mkdtemp(prefix="slip-"))


@pytest.fixture
def home() -> Iterator[Path]:
    path = make_home()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def resting_node() -> Iterator[Node]:
    """A node that was not started yet, to be changed first."""
    node = Node(home=make_home())
    yield node
    node.clean_up()


@pytest.fixture
def node(resting_node: Node) -> Node:
    resting_node.start()
    return resting_node
