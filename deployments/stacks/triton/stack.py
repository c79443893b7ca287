"""The Triton stack as the rest of the product sees it: in containers only, and the one that loads TensorRT engines.

Imports neither Triton's client nor protobuf: what it is told is made in `repository`. Refused: its latency histogram,
which counts whole milliseconds into four buckets, the first of which ends at 100. Percentiles of that would be
invented, so the stack does not speak the word.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from deployments.domain.vocabulary import Source, Word
from deployments.domain.workload import Workload
from deployments.stacks.batching import Batching
from deployments.stacks.conformance import spoken
from deployments.stacks.port import Container, Placement, Probe, Support, SupportStatus
from deployments.stacks.triton.parameters import Parameters

RELEASE = "26.07"
"""Of the image, and with it of the server, its backends and the TensorRT that must be the one an engine is of."""
MODELS = "/models"
DRAIN_S = 30
_FROM_MICROSECONDS = 1e-6


class TritonStack:
    """See `deployments.stacks.port.Stack`."""

    key: str = "triton"
    label: str = "Triton"
    support: SupportStatus = SupportStatus(state=Support.ACTIVE)
    formats: tuple[str, ...] = ("tensorrt", "onnx")
    gpu_formats: tuple[str, ...] = ("tensorrt",)
    engines: tuple[str, ...] = ("TensorRT",)
    runs_here: bool = False
    protocol: str = "Open Inference Protocol v2 over HTTP and gRPC, JSON or binary tensors"
    ceiling: str = (
        "In a container only, of an image of several gigabytes; a lone client pays the whole queue delay on every "
        "request, and its counters leave out most of the requests that it turns away."
    )
    parameters: type[Parameters] = Parameters
    batching_knobs: tuple[str, ...] = (
        *Batching.model_fields,
        "instance_count",
        "priority_levels",
        "default_priority_level",
        "queue_timeout_microseconds",
        "queue_timeout_action",
    )
    container: Container = Container(
        image=f"nvcr.io/nvidia/tritonserver:{RELEASE}-py3",
        command=("tritonserver", "--model-repository"),
        ports=MappingProxyType({"http": 8000, "grpc": 8001, "metrics": 8002}),
        live=Probe(path="/v2/health/live"),
        ready=Probe(path="/v2/health/ready"),
        metrics=Probe(path="/metrics", port="metrics"),
    )
    metrics: Mapping[Word, str | Source] = MappingProxyType(
        {
            Word.REQUESTS: "nv_inference_request_success",
            Word.ERRORS: "nv_inference_request_failure",
            Word.QUEUE_DEPTH: "nv_inference_pending_request_count",
            Word.QUEUE_SECONDS: Source(name="nv_inference_queue_duration_us", scale=_FROM_MICROSECONDS),
            Word.IN_FLIGHT_SECONDS: Source(name="nv_inference_request_duration_us", scale=_FROM_MICROSECONDS),
            Word.GPU_UTILIZATION: "nv_gpu_utilization",
        }
    )

    def start_command(
        self, config_path: Path, *, artifact_format: str, toolchains: Path
    ) -> tuple[str, ...] | None:
        return None

    def placement(self, workload: Workload, *, deployment: str) -> Placement:
        from deployments.stacks.triton.repository import model_repository  # imports protobuf

        repository = model_repository(workload)
        return Placement(
            files={f"{MODELS}/{path}": text for path, text in repository.files.items()},
            model_path=f"{MODELS}/{repository.artifact}",
            arguments=(MODELS, f"--exit-timeout-secs={DRAIN_S}"),
        )

    def conformance(self, page: str) -> frozenset[Word]:
        return spoken(page, self.metrics)


STACK = TritonStack()
