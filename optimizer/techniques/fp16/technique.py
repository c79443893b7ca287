"""Half precision: what it is and what it asks."""

from pydantic import Field

from optimizer.techniques.port import Device, ExcludedNodes, Kind, Parameters, Promises, Technique


class HalfParameters(Parameters):
    range_items: int = Field(
        default=64,
        ge=1,
        le=1024,
        title="Items to find ranges with",
        description="How many items of the set the model is run on to find values that half precision cannot hold. Of "
        "an evaluation set at most a quarter, because these are not compared. Without a set nothing is looked for.",
    )
    headroom: float = Field(
        default=2.0,
        ge=1.0,
        le=1e6,
        title="Headroom",
        description="A node stays in single precision where its values come this close to the largest half, 65504: "
        "2 leaves room for items twice as large as those seen.",
    )
    keep_op_types: tuple[str, ...] = Field(
        default=(),
        max_length=100,
        title="Operators to keep",
        description="Operators that stay in single precision, beside those that have no half form.",
    )
    exclude_nodes: ExcludedNodes = ()


TECHNIQUE = Technique(
    key="fp16",
    label="FP16",
    description="Weights and arithmetic in half precision; inputs and outputs keep their types. Halves the file. "
    "Faster on GPUs; a CPU without half-precision arithmetic computes in single precision and gains nothing.",
    takes=(Kind(format="onnx", precision="fp32"),),
    gives=Kind(format="onnx", precision="fp16"),
    device=Device.CPU,
    parameters=HalfParameters,
    promises=Promises(speedup=(2.0, 4.0), loss_points=(0.0, 0.1), effort="Minutes; no data needed."),
    entry="optimizer.techniques.fp16.run:run",
)
