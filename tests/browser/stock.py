"""What the pages show in these tests: made by the API, as a user's script would."""

import io
import json
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.product import Product

WITHIN_S = 90
CLUSTER = "west"
KUBECONFIG = {
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}],
    "users": [{"name": "u", "user": {"token": "of-nobody"}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "current-context": "c",
}
"""Of a cluster that does not answer, and says so at once: nothing of the operating system listens at port 9."""
FEATURES, HIDDEN, CLASSES = 16, 32, 4
PEOPLE = {"vera": "viewer", "sam": "stranger"}
PASSWORD = "a long pass phrase"


class Api:
    """The REST API with a token of the admin."""

    def __init__(self, product: Product) -> None:
        self.url = product.url
        self.token = product.token()

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        raw = isinstance(body, bytes)
        request = urllib.request.Request(
            path if path.startswith("http") else f"{self.url}/api/v1/{path}",
            method=method,
            data=body if raw else None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/octet-stream" if raw else "application/json",
                **headers,
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                said = answer.read()
                self.etag = answer.headers.get("ETag", "")
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{method} {path}: {refused.code} {refused.read().decode()}") from refused
        return json.loads(said) if said else None

    def until(self, path: str, field: str, *wanted: str) -> Any:
        """Asks until the field has one of the values. For set-up only: pages are awaited by their own words."""
        deadline = time.monotonic() + WITHIN_S
        while (found := self("GET", path))[field] not in wanted:
            assert time.monotonic() < deadline, f"{path}: {field} is {found[field]}, wanted {wanted}"
            time.sleep(0.3)
        return found


@dataclass(frozen=True, kw_only=True)
class Stock:
    """Addresses of pages that have something to show."""

    model: str
    version: str
    variant: str
    job: str
    cancelled_job: str
    deployment: str
    endpoint: str
    rollout: str


def _weights(seed: int, *, fragile: bool) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(0, 0.4, (FEATURES, HIDDEN)),
        "b1": rng.normal(0, 0.1, HIDDEN),
        "w2": rng.normal(0, 0.4, (HIDDEN, CLASSES)),
    }
    if fragile:
        weights["w1"][0] = 1000.0
    return {name: value.astype(np.float32) for name, value in weights.items()}


def tiny_model(seed: int = 1, *, fragile: bool = False) -> bytes:
    """A two-layer perceptron. Another seed is another model.

    A fragile one has a feature, always zero in `tiny_set`, whose weights are so large that eight bits leave
    nothing of the others: INT8 loses its accuracy, so the verdict does not hang on how fast a machine is.
    """
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h0"]),
            helper.make_node("Add", ["h0", "b1"], ["h1"]),
            helper.make_node("Relu", ["h1"], ["h2"]),
            helper.make_node("MatMul", ["h2", "w2"], ["scores"]),
        ],
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in _weights(seed, fragile=fragile).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tiny_set(seed: int = 1, items: int = 400) -> bytes:
    """Labelled with what the model of that seed answers, so that it is right on all of them."""
    x = np.random.default_rng(7).normal(size=(items, FEATURES)).astype(np.float32)
    x[:, 0] = 0
    weights = _weights(seed, fragile=True)
    scores = np.maximum(x @ weights["w1"] + weights["b1"], 0) @ weights["w2"]
    file = io.BytesIO()
    np.savez(file, x=x, labels=scores.argmax(axis=1))
    return file.getvalue()


def sample() -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, FEATURES], "data": [0.5] * FEATURES}]}


@contextmanager
def traffic(endpoint: str) -> Iterator[None]:
    """About 10 requests/s to the endpoint until the block ends. At least one has to be answered."""
    over, answered = threading.Event(), deque[int](maxlen=1)
    body = json.dumps(sample()).encode()

    def send() -> None:
        while not over.wait(0.1):
            request = urllib.request.Request(
                endpoint, data=body, headers={"Content-Type": "application/json"}
            )
            with suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
                answered.append(answer.status)

    sender = threading.Thread(target=send, name="traffic", daemon=True)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()
        assert answered, f"nothing was answered by {endpoint}"


def add_people(product: Product) -> dict[str, str]:
    """A viewer of the admin's team, and a stranger with a team of their own that has nothing."""
    product.manage(
        "shell",
        "-v",
        "0",
        "-c",
        "from controlplane.accounts.models import *\n"
        "team = User.objects.get(username='admin').teams.get()\n"
        "other, _ = Team.objects.get_or_create(name='elsewhere')\n"
        f"for name, place, role in (('vera', team, Role.VIEWER), ('sam', other, Role.ADMIN)):\n"
        "    user, _ = User.objects.get_or_create(username=name)\n"
        f"    user.set_password({PASSWORD!r}); user.save()\n"
        "    Membership.objects.get_or_create(team=place, user=user, defaults={'role': role})\n",
    )
    return dict.fromkeys(PEOPLE, PASSWORD)


def fill(product: Product, name: str = "shop-ranker") -> Stock:
    """Deploys first and optimizes while the replica starts."""
    api = Api(product)
    taken = {row["name"] for row in api("GET", "models/")["items"]}
    while name in taken:
        name += "x"
    api("POST", "models/", {"name": name, "description": "Ranks what a shop shows first."})
    api("PUT", f"models/{name}/versions/upload/", tiny_model(fragile=True))
    api("PUT", f"models/{name}/datasets/holdout/?role=evaluation", tiny_set())
    rollout = deploy(api, name=name, model=name)
    wanted = {"model": name, "version": 1, "recipe": [{"technique": "int8-dynamic", "params": {}}]}
    job = api("POST", "jobs/", wanted | {"evaluation_set": "holdout"})
    dropped = api("POST", "jobs/", wanted)
    api("POST", f"jobs/{dropped['id']}/cancel/")
    known = {row["name"] for row in api("GET", "targets/")["items"]}
    if CLUSTER not in known:
        api("POST", "targets/", {"name": CLUSTER, "namespace": "shop", "kubeconfig": json.dumps(KUBECONFIG)})
    live = api.until(f"deployments/{name}/", "health", "healthy")
    api.until(f"jobs/{job['id']}/", "state", "succeeded")
    api("PUT", f"models/{name}/aliases/champion/", {"version": 1, "variant": 0})
    return Stock(
        model=f"/models/{name}/",
        version=f"/models/{name}/versions/1/",
        variant=f"/models/{name}/versions/1/variants/1/",
        job=f"/jobs/{job['id']}/",
        cancelled_job=f"/jobs/{dropped['id']}/",
        deployment=f"/deployments/{name}/",
        endpoint=f"{live['address']}/v2/models/{name}/infer",
        rollout=f"/deployments/{name}/rollouts/{rollout}/",
    )


def deploy(api: Api, *, name: str, model: str) -> int:
    """A deployment of the model's first version, and the number of its first rollout."""
    api("POST", "deployments/", {"name": name})
    api("POST", f"deployments/{name}/revisions/", {"model": model, "version": 1})
    api("GET", f"deployments/{name}/revisions/1/plan/")
    started = api("POST", f"deployments/{name}/rollouts/", {"revision": 1}, **{"If-Match": api.etag})
    return int(started["id"])
