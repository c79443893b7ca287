"""The nearest peers of S5, and what they make of a model by default. Each runs in an environment of its own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tests.benchmarks import peers
from tests.benchmarks.children import Model
from tests.benchmarks.optimizer_speedup_models import Subject

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "Olive": (
        "olive-ai==0.13.0",
        "onnxruntime==1.32.0",
        "torch==2.15.0",
        "pydantic==2.13.5",  # its workflows crash with 2.14
        "requests==2.34.2",  # it imports this and does not ask for it
    ),
    "NNCF": ("nncf==3.4.0", "openvino==2026.4.1", "onnx==1.23.2"),
}


@dataclass(frozen=True, kw_only=True)
class Default:
    """What a peer calls its counterpart of a technique. `options` only make the result take the same inputs."""

    peer: str
    name: str
    calibrated: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    format: str = "onnx"


DEFAULTS: Mapping[str, Default] = {
    "onnx-graph": Default(peer="Olive", name="OnnxPeepholeOptimizer"),
    "fp16": Default(peer="Olive", name="OnnxFloatToFloat16", options={"keep_io_types": True}),
    "int8-dynamic": Default(peer="Olive", name="OnnxDynamicQuantization"),
    "int8-static": Default(peer="Olive", name="OnnxStaticQuantization", calibrated=True),
    "openvino": Default(peer="NNCF", name="quantize", calibrated=True, format="openvino"),
}


def made_by_peer(technique: str, subject: Subject, *, folder: Path) -> Model:
    """Raises PeerMissing with the peer's own words. Cost: its environment the first time, then seconds."""
    default = DEFAULTS[technique]
    python = peers.environment(default.peer.lower(), PACKAGES[default.peer])
    spec: dict[str, Any] = {
        "model": str(subject.exported.path),
        "pass": default.name,
        "options": default.options,
        "transformer": subject.transformer,
        "out": mkdtemp(dir=folder),
    }
    if default.calibrated:
        spec["calibration"] = str(subject.calibration)
    script = Path(__file__).with_name(f"optimizer_speedup_{default.peer.lower()}.py")
    path = peers.last_words([str(python), str(script), json.dumps(spec)])
    return Model(path=Path(path), format=default.format, signature=subject.exported.signature)
