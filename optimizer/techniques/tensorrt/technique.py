"""TensorRT: what it is and what it asks.

Precision is as it came: TensorRT has no switch for half or integer precision any more, so these are steps before
this one. An engine is bound to its compute capabilities and its TensorRT version, and runs on no CPU. Two products
build them: one for several GPUs without having any, one on the GPU itself.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from controlplane.core.errors import Unprocessable
from optimizer.techniques.graph import QUANTIZED
from optimizer.techniques.port import (
    Device,
    Hardware,
    Kind,
    ModelSummary,
    Parameters,
    Promises,
    Refusal,
    Technique,
)
from optimizer.techniques.tensorrt import sizes

type Capability = Literal["7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1"]
type Builder = Literal["rtx", "tensorrt"]
type Compatibility = Literal["none", "same_compute_capability", "ampere_plus"]

AHEAD = frozenset({"7.5", "8.0", "8.6", "8.9", "12.0", "12.1"})
"""What TensorRT for RTX builds for."""
TURING = "7.5"
NOT_FOR_TENSORRT = QUANTIZED - {"QuantizeLinear", "DequantizeLinear"}
UNTAKEN = {
    "BYTES": "text",
    "INT16": "16-bit integers",
    "UINT16": "16-bit integers",
    "UINT32": "unsigned integers of 32 bits",
    "UINT64": "unsigned integers of 64 bits",
    "FP64": "double precision",
}
"""Types of inputs and outputs. Doubles it would take as floats without a word."""


def _sizes(text: str) -> str:
    try:
        sizes.Range.read(text)
    except ValueError as error:
        raise PydanticCustomError("axis_sizes", "{reason}", {"reason": str(error)}) from error
    return text


class EngineParameters(Parameters):
    builder: Builder = Field(
        default="rtx",
        title="Builder",
        description="TensorRT for RTX builds on any worker, for several GPUs at once. TensorRT builds on a worker with "
        "the GPU, for that alone, also for those of data centres (9.0, 10.0); its engines are what Triton loads.",
    )
    capabilities: tuple[Capability, ...] = Field(
        default=("8.0", "8.6", "8.9", "12.0"),
        min_length=1,
        max_length=6,
        title="Compute capabilities",
        description="GPUs that the engine shall run on: 7.5 is Turing, 8.0 and 8.6 are Ampere, 8.9 is Ada, 9.0 is "
        "Hopper, 10.0 and later are Blackwell. It runs on no other. Several cost hardly any space; TensorRT takes one.",
    )
    axes: tuple[Annotated[str, StringConstraints(pattern=sizes.FORM), AfterValidator(_sizes)], ...] = Field(
        default=(),
        max_length=64,
        title="Sizes of open axes",
        description="One a line, as least/tuned/most: batch=1/8/32. The engine refuses smaller and larger requests. "
        f"What is not said is {sizes.BATCH} for the batch, {sizes.PIXELS} for the sides of an image and "
        f"{sizes.LENGTH} for everything else; where TensorRT refuses that, the size that the data set has.",
    )
    workspace_mib: int = Field(
        default=4096,
        ge=1,
        le=1_048_576,
        title="Workspace, MiB",
        description="The most memory of the GPU that one layer may use for intermediate results.",
    )
    tf32: bool = Field(
        default=True,
        title="TF32",
        description="Lets the tensor cores of Ampere and later round single-precision factors to 10 bits.",
    )
    hardware_compatibility: Compatibility = Field(
        default="none",
        title="Hardware compatibility",
        description="Of TensorRT's engines: also for other models of GPU of the same compute capability, or for all "
        "from Ampere on, at some cost in speed.",
    )
    version_compatible: bool = Field(
        default=False,
        title="Version compatible",
        description="Of TensorRT's engines: later versions of TensorRT load it too, at some cost in speed and size.",
    )

    @property
    def gpu(self) -> str | None:
        return self.capabilities[0] if self.builder == "tensorrt" else None


def check(
    signature: Mapping[str, Any], summary: ModelSummary, hardware: Hardware, params: Parameters
) -> tuple[Refusal, ...]:
    assert isinstance(params, EngineParameters)
    return tuple(_refusals(signature, summary, params))


def _refusals(
    signature: Mapping[str, Any], summary: ModelSummary, params: EngineParameters
) -> Iterator[Refusal]:
    for side in ("inputs", "outputs"):
        for spec in signature.get(side, ()):
            if spec["dtype"] in UNTAKEN:
                yield Refusal(
                    code="unsupported_dtype",
                    title=f"TensorRT takes no {UNTAKEN[spec['dtype']]}.",
                    detail=f"“{spec['name']}” of the {side} is {spec['dtype']}.",
                )
    if found := sorted(NOT_FOR_TENSORRT & summary.op_types.keys()):
        yield Refusal(
            code="quantized_for_cpu",
            title="The model is quantized in a way that TensorRT cannot read.",
            detail=f"It has {', '.join(found)}. TensorRT reads pairs of QuantizeLinear and DequantizeLinear with zero "
            "points of 0: quantize statically for TensorRT instead.",
        )
    if summary.unsigned:
        yield Refusal(
            code="asymmetric_quantization",
            title="TensorRT takes symmetric quantization only.",
            detail="The step before gives unsigned integers, which suit CPUs. Choose NNCF as its tool.",
        )
    ahead = params.builder == "rtx"
    if ahead and TURING in params.capabilities and summary.precision == "fp32" and _multiplies(summary):
        yield Refusal(
            code="unsupported_on_capability",
            title="On compute capability 7.5 TensorRT for RTX multiplies no matrices in single precision.",
            detail="Convert to FP16 before this step, or leave 7.5 out.",
        )
    yield from _not_of_this_builder(params)
    try:
        sizes.ranges(
            [spec["shape"] for spec in signature.get("inputs", ())],
            batched=signature.get("batch_axis") == 0,
            asked=params.axes,
        )
    except Unprocessable as error:
        yield Refusal(code=error.code, title=error.title, detail=error.detail)


def _not_of_this_builder(params: EngineParameters) -> Iterator[Refusal]:
    if params.builder == "tensorrt":
        if len(params.capabilities) > 1:
            yield Refusal(
                code="one_capability",
                title="TensorRT builds for the GPU of its worker only.",
                detail=f"Asked for: {', '.join(params.capabilities)}. Choose the one that the worker has, or TensorRT "
                "for RTX.",
            )
        return
    if others := [name for name in params.capabilities if name not in AHEAD]:
        yield Refusal(
            code="needs_tensorrt",
            title=f"TensorRT for RTX builds for no compute capability {' or '.join(others)}.",
            detail="Choose TensorRT as the builder, which builds on a worker with such a GPU.",
        )
    if params.hardware_compatibility != "none" or params.version_compatible:
        yield Refusal(
            code="needs_tensorrt",
            title="Engines of TensorRT for RTX have no compatibility to choose.",
            detail="They load on every GPU of the chosen compute capabilities, by the version that built them. Choose "
            "TensorRT as the builder for more.",
        )


def _multiplies(summary: ModelSummary) -> bool:
    return bool({"MatMul", "Gemm"} & summary.op_types.keys())


TECHNIQUE = Technique(
    key="tensorrt",
    label="TensorRT",
    description="Compiles the model for NVIDIA GPUs, in the precision that it comes in: convert to FP16 or quantize "
    "before this step. The engine runs only on the GPUs that it was built for; it is measured where a worker with one "
    "makes it, or measures it again.",
    takes=(Kind(format="onnx", precision=None),),
    gives=Kind(format="tensorrt", precision=None),
    device=Device.CPU,
    parameters=EngineParameters,
    promises=Promises(
        speedup=(2.0, 4.0), loss_points=(0.0, 0.1), effort="Minutes; a GPU of the right kind to run it."
    ),
    check=check,
    entry="optimizer.techniques.tensorrt.run:run",
    toolchain="tensorrt",
    stop_grace_s=2.0,
    caches=True,
)
