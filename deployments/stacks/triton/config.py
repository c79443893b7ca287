"""The `config.pbtxt` of one model, built as the protobuf that the server reads.

Never by a template of text: the protobuf refuses a field that does not exist and a value of another type, and spells
names and texts so that nothing in them can be read as something else. Nothing is emitted that only some servers know
(`model_metrics` is refused before 2.52), nor what the server would do anyway. Imports protobuf and Triton's client
(0.3 s): only what renders imports this module.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.tensors import SIGNATURE_TYPES
from deployments.domain.workload import Workload
from deployments.stacks.triton.parameters import Parameters

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
"""It is the name of a folder and a part of every request's path. All names of the registry are such."""
DTYPES: Mapping[str, str] = {"BYTES": "TYPE_STRING", "BF16": "TYPE_BF16"} | {
    name: f"TYPE_{name}" for name in SIGNATURE_TYPES - {"BYTES"}
}
FREE = -1
# By format: platform, backend, and the file of the artifact.
_LOADERS = {
    "onnx": ("onnxruntime_onnx", "onnxruntime", "model.onnx"),
    "tensorrt": ("tensorrt_plan", "tensorrt", "model.plan"),
}


def artifact_name(artifact_format: str) -> str:
    """Raises Unprocessable for a format that has no loader here."""
    return _loader(artifact_format)[2]


def config_pbtxt(workload: Workload, parameters: Parameters) -> str:
    """The text of the workload's configuration. Raises Unprocessable for what Triton could not serve."""
    text: str = text_format.MessageToString(model_config(workload, parameters))
    return text


def model_config(workload: Workload, parameters: Parameters) -> Any:
    """The same as a ModelConfig."""
    if NAME.fullmatch(workload.model_name) is None:
        raise _unfit(f"“{workload.model_name[:80]}” cannot be the name of a folder.")
    platform, backend, filename = _loader(workload.artifact_format)
    batched = is_batched(workload.signature)
    config = model_config_pb2.ModelConfig(
        name=workload.model_name,
        platform=platform,
        backend=backend,
        default_model_filename=filename,
        max_batch_size=parameters.max_batch_size if batched else 0,
    )
    config.version_policy.specific.versions.append(version_of(workload))
    for side, ports in (("inputs", config.input), ("outputs", config.output)):
        for spec in workload.signature[side]:
            _describe(ports.add(), spec, batched=batched)
    if config.max_batch_size > 1:
        _gather(config.dynamic_batching, parameters)
    _place(config, workload, parameters)
    return config


def is_batched(signature: Mapping[str, Any]) -> bool:
    """Whether the first axis of everything that goes in and comes out is the batch. Triton asks it of outputs too."""
    return signature.get("batch_axis") == 0 and all(
        spec["shape"] and isinstance(spec["shape"][0], str)
        for side in ("inputs", "outputs")
        for spec in signature[side]
    )


def version_of(workload: Workload) -> int:
    """The version's own number, so that a path with a version means the same on every stack."""
    text = workload.model_version
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**63):
        raise _unfit(f"Its versions are whole numbers from 1, and “{text[:40]}” is none.")
    return int(text)


def _loader(artifact_format: str) -> tuple[str, str, str]:
    try:
        return _LOADERS[artifact_format]
    except KeyError:
        raise _unfit(f"It loads {' and '.join(_LOADERS)}, not {artifact_format}.") from None


def _describe(port: Any, spec: Mapping[str, Any], *, batched: bool) -> None:
    """`dims` are without the batch, and never empty: a row that is one number has the shape 1 for clients, and none for
    the model."""
    if spec["dtype"] not in DTYPES:
        raise _unfit(f"“{spec['name']}” has the type {spec['dtype']}.")
    port.name = spec["name"]
    port.data_type = model_config_pb2.DataType.Value(DTYPES[spec["dtype"]])
    dims = _dims(spec["shape"][1:] if batched else spec["shape"])
    if not dims and not batched:
        raise _unfit(f"“{spec['name']}” is a single number without an axis.")
    if not dims:
        port.reshape.SetInParent()
    port.dims.extend(dims or [1])


def _dims(shape: Sequence[int | str]) -> list[int]:
    return [size if isinstance(size, int) else FREE for size in shape]


def _gather(batching: Any, parameters: Parameters) -> None:
    batching.SetInParent()
    batching.preferred_batch_size.extend(parameters.preferred_batch_size)
    batching.max_queue_delay_microseconds = parameters.max_queue_delay_microseconds
    batching.priority_levels = parameters.priority_levels
    batching.default_priority_level = parameters.default_priority_level
    if parameters.queue_timeout_microseconds:
        policy = batching.default_queue_policy
        policy.default_timeout_microseconds = parameters.queue_timeout_microseconds
        policy.timeout_action = policy.TimeoutAction.Value(parameters.queue_timeout_action)


def _place(config: Any, workload: Workload, parameters: Parameters) -> None:
    """ONNX stays on the CPU that the replica asked for: a node may show a GPU to whoever did not ask for one."""
    group = config.instance_group.add()
    group.count = parameters.instance_count
    if workload.artifact_format == "tensorrt":
        group.kind = group.KIND_GPU
        return
    group.kind = group.KIND_CPU
    config.parameters["intra_op_thread_count"].string_value = str(parameters.threads)


def _unfit(detail: str) -> Unprocessable:
    return Unprocessable("not_for_triton", "Triton cannot serve this model.", detail)
