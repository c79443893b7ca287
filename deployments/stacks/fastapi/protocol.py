"""The Open Inference Protocol v2 over HTTP: what a request says and how an answer is written.

Both forms are spoken in both directions: JSON tensors, and the binary tensor extension, where the JSON comes
first, its length is in `Inference-Header-Content-Length`, and raw tensors follow. Bytes in, bytes out: the
module knows no socket and no model. Refused: pydantic for request bodies, which costs more than a small
inference, and the shared-memory and classification extensions, which are answered 400 and never ignored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from controlplane.core.errors import InvalidInput
from deployments.stacks.fastapi.config import Signature, Tensor
from deployments.stacks.fastapi.tensors import (
    Array,
    check_shape,
    from_binary,
    from_json,
    shown,
    to_binary,
    to_json,
    wrong,
)

EXTENSIONS = ("binary_tensor_data",)
_UNSUPPORTED = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "classification")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """One output the client asked for."""

    name: str
    binary: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """`rows` is the size of the batch axis that all inputs share, None where the model has no such axis."""

    id: str | None
    feeds: dict[str, Array]
    rows: int | None
    wanted: tuple[Wanted, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """`header_length` is set where binary tensors follow the JSON."""

    body: bytes
    header_length: int | None


def _malformed(detail: str) -> InvalidInput:
    return InvalidInput("invalid_request", "This is not an inference request.", detail)


class Codec:
    """Requests and answers of one model. Immutable; safe to share."""

    def __init__(self, *, model_name: str, model_version: str, signature: Signature) -> None:
        self._head = {"model_name": model_name, "model_version": model_version}
        self._inputs: Mapping[str, Tensor] = {spec.name: spec for spec in signature.inputs}
        self._outputs: Mapping[str, Tensor] = {spec.name: spec for spec in signature.outputs}
        self._positions = {spec.name: at for at, spec in enumerate(signature.outputs)}
        self._batched = signature.batch_axis == 0

    def parse(self, body: bytes, *, header_length: int | None) -> Request:
        """Raises InvalidInput for anything that is not a request this model can take."""
        json_part: bytes | memoryview = body
        binary = memoryview(b"")
        if header_length is not None:
            if header_length > len(body):
                raise _malformed(
                    f"The JSON should be {header_length:,} bytes long, the body has {len(body):,}."
                )
            json_part, binary = memoryview(body)[:header_length], memoryview(body)[header_length:]
        try:
            document = orjson.loads(json_part)
        except orjson.JSONDecodeError as error:
            raise _malformed(f"The body is not JSON: {error}.") from None
        if not isinstance(document, dict):
            raise _malformed("The body must be a JSON object.")
        request_id = document.get("id")
        if request_id is not None and not isinstance(request_id, str):
            raise _malformed("id must be a text.")
        parameters = _parameters(document, "The request")
        feeds = self._feeds(document.get("inputs"), binary)
        return Request(
            id=request_id,
            feeds=feeds,
            rows=self._rows(feeds),
            wanted=self._wanted(
                document.get("outputs"), binary_default=_flag(parameters, "binary_data_output", default=False)
            ),
        )

    def _feeds(self, inputs: Any, binary: memoryview) -> dict[str, Array]:
        if not isinstance(inputs, list):
            raise _malformed("inputs must be a list.")
        feeds: dict[str, Array] = {}
        for tensor in inputs:
            name, array, binary = self._feed(tensor, binary)
            if name in feeds:
                raise wrong(name, "It is given twice.")
            feeds[name] = array
        missing = [name for name in self._inputs if name not in feeds]
        if missing:
            raise wrong(missing[0], "The model needs it, and the request does not have it.")
        if binary:
            raise _malformed(f"{len(binary):,} bytes follow the last binary tensor.")
        return feeds

    def _feed(self, tensor: Any, binary: memoryview) -> tuple[str, Array, memoryview]:
        """One input, and what is left of the binary part after it."""
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise _malformed("Each input must be an object with a name.")
        spec = self._inputs.get(tensor["name"])
        if spec is None:
            raise wrong(tensor["name"], f"The model takes {', '.join(self._inputs)}.")
        if tensor.get("datatype") != spec.dtype:
            raise wrong(
                spec.name, f"Its datatype is {shown(tensor.get('datatype'))}, the model takes {spec.dtype}."
            )
        shape = check_shape(tensor.get("shape"), spec)
        size = _parameters(tensor, f"The tensor {spec.name!r}").get("binary_data_size")
        if size is None:
            return spec.name, from_json(tensor.get("data"), shape=shape, spec=spec), binary
        if "data" in tensor:
            raise wrong(spec.name, "It has both data and binary_data_size.")
        if type(size) is not int or not 0 <= size <= len(binary):
            raise wrong(
                spec.name, f"binary_data_size is {shown(size)}, {len(binary):,} bytes are left in the body."
            )
        return spec.name, from_binary(binary[:size], shape=shape, spec=spec), binary[size:]

    def _rows(self, feeds: Mapping[str, Array]) -> int | None:
        """One name for a free dimension means one size, within a request."""
        sizes: dict[str, int] = {}
        for name, array in feeds.items():
            for wanted, size in zip(self._inputs[name].shape, array.shape, strict=True):
                if isinstance(wanted, str) and sizes.setdefault(wanted, size) != size:
                    raise wrong(
                        name, f"Its dimension {wanted!r} is {size}, another tensor's is {sizes[wanted]}."
                    )
        if not self._batched:
            return None
        leading: set[int] = {array.shape[0] for array in feeds.values()}
        if len(leading) != 1:
            raise _malformed(f"The inputs must have one batch size, but have {sorted(leading)}.")
        return leading.pop()

    def _wanted(self, outputs: Any, *, binary_default: bool) -> tuple[Wanted, ...]:
        if outputs is None or outputs == []:
            return tuple(Wanted(name=name, binary=binary_default) for name in self._outputs)
        if not isinstance(outputs, list):
            raise _malformed("outputs must be a list.")
        wanted = []
        for output in outputs:
            name = output.get("name") if isinstance(output, dict) else None
            if not isinstance(name, str):
                raise _malformed("Each output must be an object with a name.")
            if name not in self._outputs:
                raise wrong(name, f"The model gives {', '.join(self._outputs)}.")
            parameters = _parameters(output, f"The output {name!r}")
            wanted.append(Wanted(name=name, binary=_flag(parameters, "binary_data", default=binary_default)))
        if len({one.name for one in wanted}) != len(wanted):
            raise _malformed("An output is asked for twice.")
        return tuple(wanted)

    def answer(self, request: Request, outputs: Sequence[Array]) -> Answer:
        """`outputs` are in the order of the signature."""
        blobs: list[bytes] = []
        tensors: list[dict[str, Any]] = []
        for one in request.wanted:
            array = outputs[self._positions[one.name]]
            tensor: dict[str, Any] = {
                "name": one.name,
                "datatype": self._outputs[one.name].dtype,
                "shape": array.shape,
            }
            if one.binary:
                blobs.append(to_binary(array))
                tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
            else:
                tensor["data"] = to_json(array)
            tensors.append(tensor)
        document = self._head | ({} if request.id is None else {"id": request.id}) | {"outputs": tensors}
        head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        return Answer(body=b"".join((head, *blobs)), header_length=len(head) if blobs else None)


def _parameters(holder: Mapping[str, Any], owner: str) -> Mapping[str, Any]:
    """Parameters that are not known are ignored, as the protocol says; ones that would change meaning are not."""
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise _malformed(f"{owner} has parameters that are not an object.")
    for name in _UNSUPPORTED:
        if name in parameters:
            raise _malformed(f"{owner} asks for {name}, which this server does not have.")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise _malformed(f"{name} must be true or false.")
    return value


PLATFORMS = {"onnx": "onnxruntime_onnx", "openvino": "openvino_ir"}


def model_metadata(*, name: str, version: str, model_format: str, signature: Signature) -> dict[str, Any]:
    """The answer to GET /v2/models/{name}. A free dimension is -1, as the protocol writes it."""

    def tensor(spec: Tensor) -> dict[str, Any]:
        shape = [size if isinstance(size, int) else -1 for size in spec.shape]
        return {"name": spec.name, "datatype": spec.dtype, "shape": shape}

    return {
        "name": name,
        "versions": [version],
        "platform": PLATFORMS[model_format],
        "inputs": [tensor(spec) for spec in signature.inputs],
        "outputs": [tensor(spec) for spec in signature.outputs],
    }
