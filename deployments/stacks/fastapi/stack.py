"""The FastAPI stack as the rest of the product sees it. Imports neither FastAPI nor a runtime of models."""

import json
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from deployments.domain.vocabulary import Source, Word
from deployments.domain.workload import Workload
from deployments.stacks.batching import Batching
from deployments.stacks.conformance import spoken
from deployments.stacks.fastapi.parameters import Parameters
from deployments.stacks.port import Container, MissingToolchain, Placement, Probe, Support, SupportStatus

ENTRY = ("-m", "deployments.stacks.fastapi.replica")
TOOLCHAINS: Mapping[str, str] = MappingProxyType({"openvino": "openvino"})
"""The environment that a format's runtime lives in, with what the stack itself needs; else it is our own."""
CONFIG = "/etc/slipway/config.json"
MODELS = "/models"
ENDPOINTS_SETTLE_S = 3
"""How long a cluster may take to send the last request to a pod that is leaving."""
DRAIN_S = 30
_NEEDED = ("fastapi", "httptools", "onnxruntime", "uvicorn", "uvloop")


class FastApiStack:
    """See `deployments.stacks.port.Stack`."""

    key: str = "fastapi"
    label: str = "FastAPI"
    support: SupportStatus = SupportStatus(state=Support.ACTIVE)
    formats: tuple[str, ...] = ("onnx", "openvino")
    gpu_formats: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    runs_here: bool = True
    protocol: str = "Open Inference Protocol v2 over HTTP, JSON or binary tensors"
    ceiling: str = (
        "One Python process per replica: a few thousand small requests a second (2,400 unbatched and 8,000 "
        "batched were measured on two cores), on the CPU only, one batch at a time."
    )
    parameters: type[Parameters] = Parameters
    batching_knobs: tuple[str, ...] = tuple(Batching.model_fields)
    container: Container = Container(
        image="slipway/replica-fastapi",
        command=("python", *ENTRY),
        ports=MappingProxyType({"http": 8000}),
        live=Probe(path="/v2/health/live"),
        ready=Probe(path="/v2/health/ready"),
        metrics=Probe(path="/metrics"),
    )
    metrics: Mapping[Word, str | Source] = MappingProxyType(
        {
            Word.REQUESTS: "slipway_requests_total",
            Word.ERRORS: "slipway_errors_total",
            Word.LATENCY: "slipway_latency_seconds",
            Word.QUEUE_DEPTH: "slipway_queue_depth",
            Word.IN_FLIGHT: "slipway_in_flight",
            Word.QUEUE_SECONDS: "slipway_queue_seconds_total",
            Word.IN_FLIGHT_SECONDS: "slipway_in_flight_seconds_total",
            Word.BATCH_SIZE: "slipway_batch_size",
        }
    )

    def start_command(
        self, config_path: Path, *, artifact_format: str, toolchains: Path
    ) -> tuple[str, ...] | None:
        if key := TOOLCHAINS.get(artifact_format):
            python = toolchains / key / "bin" / "python"
            if not python.exists():
                raise MissingToolchain(key)
            return (str(python), *ENTRY, str(config_path))
        if any(find_spec(name) is None for name in _NEEDED):
            return None
        return (sys.executable, *ENTRY, str(config_path))

    def placement(self, workload: Workload, *, deployment: str) -> Placement:
        model = f"{MODELS}/{workload.artifact_sha256}"
        document = {
            "deployment": deployment,
            "revision": workload.revision,
            "model_name": workload.model_name,
            "model_version": workload.model_version,
            "model_path": model,
            "model_format": workload.artifact_format,
            "signature": workload.signature,
            "host": "0.0.0.0",  # noqa: S104 - a pod's own address
            "port": self.container.ports["http"],
            "batching": workload.batching.to_json(),
            "threads": workload.threads,
            "api_key_sha256": workload.api_key_sha256,
            "settle_s": ENDPOINTS_SETTLE_S,
            "drain_s": DRAIN_S,
        }
        text = json.dumps(document, indent=1, sort_keys=True)
        return Placement(files={CONFIG: text}, model_path=model, arguments=(CONFIG,))

    def conformance(self, page: str) -> frozenset[Word]:
        return spoken(page, self.metrics)


STACK = FastApiStack()
