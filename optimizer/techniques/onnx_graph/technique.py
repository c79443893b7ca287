"""Graph optimization ahead of time: what it is and what it asks.

ONNX Runtime's ENABLE_ALL is not offered: its layout rewrites fit the CPU they were made on, and a file that
is slow or refused elsewhere is no artifact. The server applies those when it loads a model anyway.
"""

from typing import Literal

from pydantic import Field

from optimizer.techniques.port import Device, Kind, Parameters, Promises, Technique


class GraphParameters(Parameters):
    tool: Literal["onnxruntime", "onnxslim"] = Field(
        default="onnxruntime",
        title="Tool",
        description="ONNX Runtime writes down what it would run. Onnxslim keeps to standard operators, so the file "
        "runs everywhere.",
    )
    level: Literal["basic", "extended"] = Field(
        default="extended",
        title="Level",
        description="Basic folds constants and removes what has no effect. Extended also fuses operators into "
        "ONNX Runtime's own ones; the file then runs on ONNX Runtime only. Onnxslim has no levels.",
    )


TECHNIQUE = Technique(
    key="onnx-graph",
    label="Graph optimization",
    description="Folds constants and fuses operators ahead of time. Changes no result. ONNX Runtime does the same "
    "when it loads a model, so a gain in speed is rare; loading gets faster.",
    takes=(Kind(format="onnx", precision=None),),
    gives=Kind(format="onnx", precision=None),
    device=Device.CPU,
    parameters=GraphParameters,
    promises=Promises(speedup=(1.2, 2.0), loss_points=(0.0, 0.0), effort="Minutes; no data needed."),
    entry="optimizer.techniques.onnx_graph.run:run",
)
