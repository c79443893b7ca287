"""The catalogue: small classifiers that we build ourselves, as PyTorch modules. Imported in the child only."""

import math
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from optimizer.techniques.distill.shapes import Image
from optimizer.workbench.signature import Array

SMALLEST_MAP = 4
MOST_HALVINGS = 5
WIDEST = 4
"""Channels double at each halving, up to so many times the width."""


class Student(nn.Module):  # type: ignore[misc]
    """Items in the model's own layout and type to logits. What it learned of the items' spread is part of it."""

    def __init__(self, body: nn.Module, *, image: Image | None, inputs: Array) -> None:
        super().__init__()
        self.body, self.image = body, image
        numbers = _arranged(torch.from_numpy(inputs.astype(np.float32)), image)
        over = (0,) if image is None else (0, 2, 3)
        mean = numbers.mean(over, keepdim=True)
        spread = numbers.std(over, keepdim=True)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body((_arranged(x.float(), self.image) - self.mean) * self.scale)


def _arranged(x: torch.Tensor, image: Image | None) -> torch.Tensor:
    """As [n, channels, height, width], or [n, features]."""
    if image is None:
        return x.flatten(1)
    return {"HW": lambda: x.unsqueeze(1), "HWC": lambda: x.permute(0, 3, 1, 2), "CHW": lambda: x}[
        image.layout
    ]()


class Answering(nn.Module):  # type: ignore[misc]
    """A student that answers in its teacher's form and type."""

    def __init__(self, student: Student, *, form: str, dtype: np.dtype[np.generic]) -> None:
        super().__init__()
        self.student, self.form = student, form
        self.dtype = torch.from_numpy(np.empty(0, dtype=dtype)).dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.student(x)
        if self.form == "probabilities":
            logits = torch.softmax(logits, dim=1)
        elif self.form == "log-probabilities":
            logits = torch.log_softmax(logits, dim=1)
        return logits.to(self.dtype)


def build(kind: str, *, width: int, image: Image | None, inputs: Array, classes: int) -> Student:
    """With random weights from torch's own generator. `inputs` are what it will learn from; `image` is None for
    an mlp."""
    if kind == "mlp" or image is None:
        features = math.prod(inputs.shape[1:])
        body = nn.Sequential(
            *(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
            nn.Linear(width, classes),
        )
        return Student(body, image=None, inputs=inputs)
    halvings = int(math.log2(max(2, min(image.height, image.width) // SMALLEST_MAP)))
    halvings = min(MOST_HALVINGS, halvings)
    depth = max(2, halvings)
    widths = [width * min(WIDEST, 2**index) for index in range(depth)]
    first, *strides = [1] * (depth - halvings) + [2] * halvings
    block = _separable if kind == "depthwise" else _full
    body = nn.Sequential(
        _full(image.channels, width, stride=first),
        *(block(*pair, stride=stride) for pair, stride in zip(pairwise(widths), strides, strict=True)),
        # Not pooled: where a stroke lies says what it is.
        *(nn.Flatten(), nn.Linear(widths[-1] * math.prod(_halved(image, halvings)), classes)),
    )
    return Student(body, image=image, inputs=inputs)


def _halved(image: Image, times: int) -> tuple[int, int]:
    return -(-image.height // 2**times), -(-image.width // 2**times)


def _full(before: int, after: int, *, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


def _separable(before: int, after: int, *, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False),
        *(nn.BatchNorm2d(before), nn.ReLU()),
        *(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()),
    )
