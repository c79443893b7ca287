"""The one file a replica reads: everything about it is decided before it starts.

Refused: environment variables and a control API. A replica whose configuration can change while it runs is
not a replica of an immutable revision.
"""

import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.stacks.batching import Batching
from deployments.stacks.fastapi.parameters import Threads

Name = Annotated[str, Field(min_length=1, max_length=200)]
# Longer than the hour after which Envoy drops an idle upstream connection by itself: whoever closes first
# can meet a request on its way, so the replica must never be first.
KEEP_ALIVE_S = 3900


class Tensor(BaseModel):
    """One input or output. A dimension is a size, or a name where it is free."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Annotated[str, Field(min_length=1)]
    dtype: Literal[
        "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32",
        "FP64", "BYTES",
    ]  # fmt: skip
    shape: tuple[int | str, ...]


class Signature(BaseModel):
    """What the model takes and gives. `batch_axis` is 0, or None for a model that takes one request at a time."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    inputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]
    batch_axis: Literal[0] | None = None


class ReplicaConfig(BaseModel):
    """Read by `read`; `revision` is kept as text because it only labels metrics and logs. A replica that is not named
    is called as its host: a pod's name.

    `port` 0 lets the system choose; the log line `listening` says which. `drain_s` bounds how long a stopped
    replica goes on serving, `settle_s` is how long it must be quiet to leave earlier.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    deployment: Name
    revision: Annotated[Name, Field(coerce_numbers_to_str=True)]
    replica: Annotated[Name, Field(default_factory=socket.gethostname)]
    model_name: Name
    model_version: Annotated[Name, Field(coerce_numbers_to_str=True)] = "1"
    model_path: Path
    model_format: Literal["onnx", "openvino"] = "onnx"
    signature: Signature
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)]
    batching: Batching = Batching()
    threads: Threads = 1
    api_key_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    max_body_bytes: Annotated[int, Field(ge=1024, le=2**31)] = 32 * 2**20
    drain_s: Annotated[float, Field(ge=0, le=600)] = 5
    settle_s: Annotated[float, Field(ge=0, le=60)] = 0.3
    keep_alive_s: Annotated[int, Field(ge=1)] = KEEP_ALIVE_S


def read(path: Path) -> ReplicaConfig:
    """Raises OSError for a file that cannot be read, ValueError for one that says something impossible."""
    return ReplicaConfig.model_validate_json(path.read_bytes())
