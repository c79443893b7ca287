"""What a classifier's signature says about the items that a student must read. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optimizer.techniques.port import Refusal

NUMBERS = ("FP32", "FP16", "FP64", "UINT8", "INT8", "UINT16", "INT16")
ANSWERS = ("FP32", "FP16", "FP64")
COLORS = (1, 3, 4)
SMALLEST_SIDE = 4


@dataclass(frozen=True, kw_only=True)
class Image:
    """`layout` orders an item's axes: CHW, HWC, or HW for one channel without an axis of its own."""

    channels: int
    height: int
    width: int
    layout: str

    @property
    def axes(self) -> tuple[int, int]:
        """Of height and width in an array of items."""
        return 1 + self.layout.index("H"), 1 + self.layout.index("W")


def image_of(item: Sequence[int]) -> Image | None:
    """The picture that an item of this shape may be; None for features."""
    match tuple(item):
        case (height, width):
            found = Image(channels=1, height=height, width=width, layout="HW")
        case (height, width, channels) if channels in COLORS and height not in COLORS:
            found = Image(channels=channels, height=height, width=width, layout="HWC")
        case (channels, height, width):
            found = Image(channels=channels, height=height, width=width, layout="CHW")
        case _:
            return None
    return found if min(found.height, found.width) >= SMALLEST_SIDE else None


def refusals(signature: Mapping[str, Any], *, student: str) -> tuple[Refusal, ...]:
    """Why no student of the catalogue can stand in for a model with this signature."""
    inputs, outputs = signature.get("inputs", ()), signature.get("outputs", ())
    if not inputs or not outputs:
        return ()
    if len(inputs) != 1 or len(outputs) != 1:
        return (
            _refusal(
                "several_tensors",
                "A student has one input and one output.",
                f"This model has {len(inputs)} inputs and {len(outputs)} outputs.",
            ),
        )
    return tuple(_of_input(inputs[0], student=student)) + tuple(_of_output(outputs[0]))


def _of_input(spec: Mapping[str, Any], *, student: str) -> list[Refusal]:
    name, shape = spec["name"], list(spec["shape"])
    found = []
    if spec["dtype"] not in NUMBERS:
        found.append(
            _refusal(
                "not_measurements",
                "A student reads measured numbers, such as features or pixels.",
                f"“{name}” is {spec['dtype']}: ids and texts mean nothing as amounts.",
            )
        )
    if not shape or not (isinstance(shape[0], str) or shape[0] == 1):
        found.append(
            _refusal("no_batch_axis", "The first axis must be the items.", f"“{name}” has the shape {shape}.")
        )
    item = shape[1:]
    if not item or any(not isinstance(size, int) for size in item):
        found.append(
            _refusal(
                "open_dimensions",
                "A student is built for items of one size.",
                f"“{name}” has the shape {shape}; every dimension after the first must be fixed.",
            )
        )
    elif student in {"cnn", "depthwise"} and image_of(item) is None:
        found.append(
            _refusal(
                "no_image",
                f"A {student} student reads images.",
                f"An item of “{name}” has the shape {item}. Choose mlp or auto.",
            )
        )
    return found


def _of_output(spec: Mapping[str, Any]) -> list[Refusal]:
    shape = list(spec["shape"])
    if len(shape) == 2 and shape[1] != 1 and spec["dtype"] in ANSWERS:
        return []
    return [
        _refusal(
            "not_a_classifier",
            "Only classifiers are distilled.",
            f"A classifier answers one score per class; “{spec['name']}” is {spec['dtype']} {shape}.",
        )
    ]


def _refusal(code: str, title: str, detail: str) -> Refusal:
    return Refusal(code=code, title=title, detail=detail)
