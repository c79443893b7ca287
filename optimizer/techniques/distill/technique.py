"""Knowledge distillation of classifiers: what it is and what it asks.

The teacher is what the job starts from, whatever made it: only its answers are needed, and they are asked once. The
student is one of a small catalogue that we build, so nothing of a user's is unpickled or trained as it came.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from optimizer.techniques.distill.shapes import refusals
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


class DistillParameters(Parameters):
    student: Literal["auto", "mlp", "cnn", "depthwise"] = Field(
        default="auto",
        title="Student",
        description="Mlp: two hidden layers. Cnn: convolutions that halve an image until it is small. Depthwise: the "
        "same with an eighth of the weights. Auto: cnn for images, else mlp.",
    )
    width: int = Field(
        default=16,
        ge=4,
        le=512,
        title="Width",
        description="Units of a hidden layer, or channels of the first convolution: wider is slower and more accurate.",
    )
    temperature: float = Field(
        default=4.0,
        ge=1.0,
        le=20.0,
        title="Temperature",
        description="Above 1 the teacher's doubts count for more beside its first choice.",
    )
    alpha: float = Field(
        default=0.7,
        ge=0.0,
        le=1.0,
        title="Share of the teacher",
        description="What the teacher's answers weigh in the loss; the rest are the labels, where an item has one. "
        "With 0 only labelled items are used and nothing is learned from the teacher.",
    )
    steps: int = Field(
        default=2000,
        ge=10,
        le=200_000,
        title="Steps",
        description="Most updates of the weights, each on 64 items; the control gets as many.",
    )
    minutes: float = Field(
        default=10.0,
        ge=0.1,
        le=1440.0,
        title="Minutes",
        description="After so long a training ends with the best weights it has; the control's has as long again. A "
        "worker stops a step that takes longer than it allows.",
    )
    patience: int = Field(
        default=12,
        ge=0,
        le=1000,
        title="Patience",
        description="Stops after so many looks at the validation items, of 40 in all, without improvement; 0 never "
        "stops early. The best weights seen are kept.",
    )
    learning_rate: float = Field(
        default=0.003,
        gt=0.0,
        le=1.0,
        title="Learning rate",
        description="Of AdamW at the start; it falls to zero along half a cosine.",
    )
    shifted_copies: int = Field(
        default=4,
        ge=0,
        le=16,
        title="Shifted copies",
        description="For images: how many copies of each item, moved by up to a tenth of its size, the teacher answers "
        "and the student learns from as well.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        le=2**31 - 1,
        title="Seed",
        description="Of the first weights, the split and the order of the items.",
    )


def check(
    signature: Mapping[str, Any], summary: ModelSummary, hardware: Hardware, params: Parameters
) -> tuple[Refusal, ...]:
    assert isinstance(params, DistillParameters)
    return refusals(signature, student=params.student)


TECHNIQUE = Technique(
    key="distill",
    label="Distillation",
    description="A small network learns to answer as this classifier does, from your own items. They need no labels; "
    "where all have one, the teacher adds little, and a control that learns from labels alone says how much. Compare "
    "on labelled items, or have probabilities answered: raw scores differ even where the choice is the same.",
    takes=(Kind(format="onnx", precision=None),),
    gives=Kind(format="onnx", precision="fp32"),
    device=Device.CPU,
    parameters=DistillParameters,
    promises=Promises(
        speedup=(5.0, 10.0),
        loss_points=(1.0, 5.0),
        effort="Minutes; hundreds of items or more, with or without labels.",
    ),
    check=check,
    entry="optimizer.techniques.distill.run:run",
    needs_calibration=True,
    toolchain="torch",
    resumes=True,
)
