"""PyTorch programs made, taken in and exported by a child on its toolchain. Imports nothing that only tests have."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake import archive as zips
from controlplane.registry.intake import torch_archive, torch_script, transformers_folder
from optimizer.techniques.child import run
from optimizer.workbench.formats import open_as


def models() -> dict[str, tuple[Any, dict[str, Any], dict[str, Any]]]:
    """Model, example inputs and dynamic shapes by name."""
    import torch
    import transformers
    from torch import nn
    from torch.export import Dim

    class Tokens(nn.Module):
        """Its output has the name of an inner value: the exporter alone would write an invalid graph."""

        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(50, 8), nn.Linear(8, 3)

        def forward(self, ids: Any, mask: Any) -> Any:
            shown = self.table(ids) * mask.unsqueeze(-1)
            return {"linear": self.head(shown.sum(1)).softmax(-1), "embedding": shown}

    class Twice(nn.Module):
        def forward(self, x: Any, none: Any = None) -> Any:
            y = x * 2
            return x, y, y

    class Alone(nn.Module):
        """Has no statistics but those of its batch, in `eval` as well, and drops nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4, track_running_stats=False)

        def forward(self, x: Any) -> Any:
            return nn.functional.dropout(self.norm(x), p=0.0, training=True)

    class Bessel(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.special.bessel_j0(x)

    class Encoder(nn.Module):
        """Its heads lie in memory in an order that the exporter does not keep."""

        def __init__(self) -> None:
            super().__init__()
            self.body = transformers.T5EncoderModel(
                transformers.T5Config(vocab_size=50, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
            )

        def forward(self, ids: Any) -> Any:
            return self.body(ids)[0]

    torch.manual_seed(0)
    batch, length = Dim("batch", min=1, max=64), Dim("length", min=1, max=512)
    ids = torch.ones(2, 5, dtype=torch.long)
    return {
        "tokens": (
            Tokens(),
            {"ids": ids, "mask": torch.ones(2, 5)},
            {"ids": {0: batch, 1: length}, "mask": {0: batch, 1: length}},
        ),
        "twice": (Twice(), {"x": torch.ones(2, 4)}, {"x": {0: batch}}),
        "t5": (Encoder(), {"ids": ids}, {"ids": {0: batch, 1: length}}),
        "bessel": (Bessel(), {"x": torch.ones(2, 4)}, {"x": {0: batch}}),
        "alone": (Alone(), {"x": torch.ones(2, 4)}, {"x": {0: batch}}),
        "learning": (
            nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)),
            {"input": torch.ones(2, 4)},
            ({0: batch},),
        ),
    }


def export(spec: dict[str, Any], emit: Any) -> dict[str, Any]:
    """For each model what the technique answered and said, or why it refused; and what PyTorch answers to `feeds`."""
    import numpy as np

    folder = Path(spec["folder"])
    found: dict[str, Any] = {}
    taken = {name: ("torch", *_taken_in(name, *each, folder)) for name, each in models().items()}
    taken |= {name: ("transformers", *each) for name, each in transformers_folders(folder)}
    taken |= {name: ("torchscript", *each) for name, each in scripts(folder, forbidden=spec["forbidden"])}
    for name, (format, path, signature) in taken.items():
        messages: list[dict[str, Any]] = []
        request = {
            "technique": "onnx-export",
            "params": spec["params"].get(name, {}),
            "input_path": str(path),
            "input_format": format,
            "signature": signature,
            "seed": 7,
        }
        try:
            digests = [
                (done := run(request | {"output_path": str(folder / output)}, messages.append))["provenance"][
                    "output_sha256"
                ]
                for output in (f"{name}.onnx", f"{name}-again.onnx")[: 1 + (name == "tokens")]
            ]
        except Unprocessable as error:
            found[name] = {"code": error.code, "title": error.title, "detail": error.detail}
            continue
        feed = {key: np.asarray(value) for key, value in spec["feeds"][name].items()}
        feed = {
            key: value.astype(np.float32) if key in {"x", "mask"} else value for key, value in feed.items()
        }
        outputs = [port["name"] for port in signature["outputs"]]
        answers = open_as(format, path).run(outputs, feed)
        found[name] = {
            "done": done,
            "digests": digests,
            "messages": messages,
            "signature": signature,
            "answers": [answer.tolist() for answer in answers],
        }
    return found


def exported(spec: dict[str, Any], emit: Any) -> dict[str, Any]:
    """One of the models as it was taken in, its ONNX file and its signature."""
    folder, name = Path(spec["folder"]), spec["name"]
    path, signature = _taken_in(name, *models()[name], folder)
    request = {"technique": "onnx-export", "params": {}, "input_format": "torch", "seed": 7}
    ends = {"input_path": str(path), "output_path": str(folder / "exported.onnx"), "signature": signature}
    run(request | ends, emit)
    return {"program": str(path), "onnx": ends["output_path"], "signature": signature}


def transformers_folders(folder: Path) -> Iterator[tuple[str, tuple[Path, dict[str, Any]]]]:
    """Zipped as `save_pretrained` leaves them, taken in. PyTorch's own attention is in the one and not in the other."""
    import transformers

    sizes = {
        "vocab_size": 60,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_labels": 3,
    }
    for name, model in (
        ("bert", transformers.BertForSequenceClassification(transformers.BertConfig(**sizes))),
        ("mpnet", transformers.MPNetForSequenceClassification(transformers.MPNetConfig(**sizes))),
    ):
        model.save_pretrained(folder / name)
        sent, kept = folder / f"{name}-sent.zip", folder / f"{name}.zip"
        with zipfile.ZipFile(sent, "w") as archive:
            for path in (folder / name).iterdir():
                archive.write(path, path.name)
        with zipfile.ZipFile(sent) as archive:
            members = zips.members(archive, file_bytes=sent.stat().st_size, total_bytes=2**30)
            yield name, (kept, transformers_folder.inspect(archive, members, kept)["signature"])


def scripts(folder: Path, *, forbidden: str) -> Iterator[tuple[str, tuple[Path, dict[str, Any]]]]:
    """Scripts, taken in: one with a branch, one that is not what is said of it, one that writes and reads files."""
    import torch
    from torch import nn

    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            shown = self.head(x)
            if bool(ids.sum() > 10**9):
                shown = shown * 2
            return shown.softmax(-1), ids + 1

    class Spies(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.secret, self.copy = forbidden, f"{forbidden}-copy"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save(x, self.copy)
            return x + torch.from_file(self.secret, False, 4)

    x = {"name": "x", "dtype": "FP32", "shape": ["batch", 4]}
    ids = {"name": "ids", "dtype": "INT64", "shape": ["batch", "length"]}
    scores = {"name": "scores", "dtype": "FP32", "shape": ["batch", 3]}
    branch, spies = (torch.jit.script(model.eval()) for model in (Branch(), Spies()))
    for name, module, inputs, outputs in (
        ("branch", branch, [x, ids], [scores, ids | {"name": "next"}]),
        ("lies", branch, [x, ids], [scores | {"shape": ["batch", 2]}, ids | {"name": "next"}]),
        ("narrow", branch, [x | {"shape": ["batch", 5]}, ids], [scores, ids | {"name": "next"}]),
        ("spies", spies, [x], [x | {"name": "y"}]),
    ):
        sent, kept = folder / f"{name}-sent.zip", folder / f"{name}.zip"
        module.save(str(folder / "script.pt"))
        with zipfile.ZipFile(sent, "w") as archive:
            archive.write(folder / "script.pt", "script.pt")
            archive.writestr("signature.json", json.dumps({"inputs": inputs, "outputs": outputs}))
        with zipfile.ZipFile(sent) as archive:
            members = zips.members(archive, file_bytes=sent.stat().st_size, total_bytes=2**30)
            yield name, (kept, torch_script.inspect(archive, members, kept, allowed=True)["signature"])


def _taken_in(name: str, model: Any, inputs: Any, shapes: Any, folder: Path) -> tuple[Path, dict[str, Any]]:
    import torch

    sent, kept = folder / f"{name}-sent.pt2", folder / f"{name}.pt2"
    if name != "learning":
        model.eval()
    torch.export.save(torch.export.export(model, (), inputs, dynamic_shapes=shapes), sent)
    with zipfile.ZipFile(sent) as archive:
        members = zips.members(archive, file_bytes=sent.stat().st_size, total_bytes=2**30)
        found = torch_archive.inspect(archive, members, kept)
    return kept, found["signature"]
