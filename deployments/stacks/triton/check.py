"""What is wrong with a `config.pbtxt`, said before a server says it.

The parser knows fields and types. The server refuses more when it loads the model, and tells only its log why; those
rules are here (`ValidateModelConfig` and `ValidateIOShape` of triton-inference-server/core), and ours on priorities:
see `parameters`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from deployments.domain.plan import Severity
from deployments.stacks.triton.parameters import UNSTALLED_INSTANCES

_BACKENDS: Mapping[str, str] = {"onnxruntime_onnx": "onnxruntime", "tensorrt_plan": "tensorrt"}
_UNKNOWN_FIELD = re.compile(r'has no field named "([^"]+)"')
_NAMES_BEFORE = (
    re.compile(r"([A-Za-z_]\w*)\s*[:{<]?\s*$"),
    re.compile(r"([A-Za-z_]\w*)\s*[:{<\[][^:{<]*$"),
)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An error is refused by the server or by us; with a warning it loads. `field` is a path in the file."""

    field: str
    sentence: str
    severity: Severity = Severity.ERROR


def check(text: str, *, name: str | None = None) -> tuple[Problem, ...]:
    """All problems of a file; of one that cannot be read, the first. `name` is that of the model's folder."""
    try:
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        return (_unread(text, error),)
    return problems_of(config, name=name)


def problems_of(config: Any, *, name: str | None = None) -> tuple[Problem, ...]:
    """The same for a ModelConfig."""
    found = [*_model(config, name)]
    for side in ("input", "output"):
        for port in getattr(config, side):
            found += _port(side, port, batched=config.max_batch_size > 0)
    if config.HasField("dynamic_batching"):
        found += _sizes(config)
        found += _levels(config.dynamic_batching)
        found += _order(config.dynamic_batching)
        found += _stall(config)
    return tuple(found)


def _unread(text: str, error: Any) -> Problem:
    """The parser names an unknown field; of a wrong value it says the place only."""
    said = str(error).rstrip(".")
    line, column = error.GetLine() or 1, error.GetColumn() or 1
    lines = text.splitlines()[:line] or [""]
    before = "\n".join([*lines[:-1], lines[-1][: column - 1]])
    found = [_UNKNOWN_FIELD.search(said), *(pattern.search(before) for pattern in _NAMES_BEFORE)]
    field = next((match[1] for match in found if match), "")
    return Problem(field=field, sentence=f"It cannot be read: {said}.")


def _model(config: Any, name: str | None) -> Iterator[Problem]:
    """What is left out the server fills in: the name from the folder, the backend from the platform."""
    if config.name and name not in (None, config.name):
        yield Problem(field="name", sentence=f"The folder is “{name}”, and this says “{config.name}”.")
    if config.max_batch_size < 0:
        yield Problem(
            field="max_batch_size", sentence=f"It must not be negative, but is {config.max_batch_size}."
        )
    if config.backend and _BACKENDS.get(config.platform, config.backend) != config.backend:
        yield Problem(
            field="backend",
            sentence=f"“{config.backend}” is not the backend of the platform “{config.platform}”.",
        )


def _port(side: str, port: Any, *, batched: bool) -> Iterator[Problem]:
    field = f"{side}.{port.name}"
    if not port.name:
        yield Problem(field=f"{side}.name", sentence="It is missing.")
    if port.data_type == model_config_pb2.TYPE_INVALID:
        yield Problem(field=f"{field}.data_type", sentence="It is missing.")
    if not port.dims:
        yield Problem(field=f"{field}.dims", sentence="They are missing.")
    if wrong := [size for size in (*port.dims, *port.reshape.shape) if size < 1 and size != -1]:
        yield Problem(
            field=f"{field}.dims", sentence=f"A size must be positive, or -1 for any, but one is {wrong[0]}."
        )
    if port.HasField("reshape") and not port.reshape.shape and (not batched or list(port.dims) != [1]):
        yield Problem(field=f"{field}.reshape", sentence="Only a row of one number can be reshaped to none.")


def _sizes(config: Any) -> Iterator[Problem]:
    field = "dynamic_batching.preferred_batch_size"
    for size in config.dynamic_batching.preferred_batch_size:
        if size <= 0:
            yield Problem(field=field, sentence=f"{size} is not positive.")
        elif size > config.max_batch_size:
            yield Problem(
                field=field, sentence=f"{size} is above max_batch_size, which is {config.max_batch_size}."
            )


def _levels(batching: Any) -> Iterator[Problem]:
    levels, usual = batching.priority_levels, batching.default_priority_level
    field = "dynamic_batching.default_priority_level"
    if levels and not usual:
        yield Problem(field=field, sentence=f"It is missing, and there are {levels} priority_levels.")
    elif usual > levels:
        yield Problem(field=field, sentence=f"{usual} is not one of the {levels} priority_levels.")
    for key in sorted(batching.priority_queue_policy):
        if not 1 <= key <= levels:
            yield Problem(
                field="dynamic_batching.priority_queue_policy",
                sentence=f"{key} is not one of the {levels} priority_levels.",
            )


def _order(batching: Any) -> Iterator[Problem]:
    if not batching.preserve_ordering:
        return
    policies = (batching.default_queue_policy, *batching.priority_queue_policy.values())
    late = any(
        one.default_timeout_microseconds and one.timeout_action == model_config_pb2.ModelQueuePolicy.DELAY
        for one in policies
    )
    if batching.priority_levels > 1 or late:
        yield Problem(
            field="dynamic_batching.preserve_ordering",
            sentence="It goes with one priority level at most, and with no policy that delays.",
        )


def _stall(config: Any) -> Iterator[Problem]:
    """A group without a count counts as one instance, as it has on a GPU."""
    batching = config.dynamic_batching
    fields = {
        "priority_levels": batching.priority_levels,
        "default_queue_policy": batching.HasField("default_queue_policy"),
        "priority_queue_policy": len(batching.priority_queue_policy),
    }
    single = any(group.count < UNSTALLED_INSTANCES for group in config.instance_group or [_UNSAID])
    for name in (name for name, used in fields.items() if used):
        yield Problem(
            field=f"dynamic_batching.{name}",
            sentence="With one instance the batcher stalls for up to 500 ms: set instance_group.count to 2 or more, or "
            "let the proxy do it."
            if single
            else "The batcher may stall for up to 500 ms, rarely, even with several instances.",
            severity=Severity.ERROR if single else Severity.WARNING,
        )


_UNSAID = model_config_pb2.ModelInstanceGroup()
