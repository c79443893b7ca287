"""Trains the classifier of `digits` and saves it; runs on the PyTorch toolchain.

`python -m tests.benchmarks.digits_training ITEMS.npz MODEL.pt2 EPOCHS`: `image` [n, 1, 32, 32] and `labels`. A
residual net of 1.56 M weights, as large for the task as those that people bring.
"""

import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SEED = 20261124
BATCH = 64
WIDTHS = (48, 96, 192)


class Block(nn.Module):  # type: ignore[misc]
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])
        plain = stride == 1 and before == after
        self.past = nn.Identity() if plain else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.norms[1](self.second(inner)) + self.past(x))


class Classifier(nn.Module):  # type: ignore[misc]
    """Gives its ports the names that the signature has."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scores": self.model(image)}


def build() -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(1, WIDTHS[0], 3, 1, 1, bias=False),
        nn.BatchNorm2d(WIDTHS[0]),
        nn.ReLU(),
    ]
    before = WIDTHS[0]
    for index, width in enumerate(WIDTHS):
        layers += [Block(before, width, 1 if index == 0 else 2), Block(width, width, 1)]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def main(items: str, target: str, epochs: int) -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    with np.load(items) as archive:
        images, labels = torch.from_numpy(archive["image"]), torch.from_numpy(archive["labels"])
    model = build()
    steps = epochs * -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    for epoch in range(epochs):
        for chosen in torch.randperm(len(images)).split(BATCH):
            move = torch.randint(-3, 4, (2,)).tolist()
            loss = functional.cross_entropy(model(images[chosen].roll(move, (2, 3))), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.4f}", file=sys.stderr, flush=True)
    program = torch.export.export(
        Classifier(model).eval(), (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, target)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
