"""The repair of a quantized model: what loses most stays in floating point until the loss budget holds.

Where every operator was quantized, first only those with weights are. Then the layers that integers harm most are left
alone: more and more of them, and fewer again once that is enough. What the search looks at counts as fitted, so the
report measures on other items. Refused: quantizing without one layer at a time, which takes a model per layer.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from controlplane.core.errors import Unprocessable
from optimizer.domain.verdict import Basis, loss_limit
from optimizer.evaluation import accuracy
from optimizer.techniques.calibration import BORROWED_SHARE
from optimizer.techniques.graph import read
from optimizer.techniques.port import Work
from optimizer.techniques.sensitivity import ranges_of, signal_to_noise
from optimizer.workbench.formats import Format, known, open_as
from optimizer.workbench.items import StoredItems, read_npz

MOST_ITEMS = 128
FEWEST_ITEMS = 32
"""With fewer, a single answer decides whether a budget of a point or two holds."""
RANKED_ITEMS = 4
BUDGET_S = 30.0
FIRST_SHARE = 8
NAMED = 5

type Quantize = Callable[[Path, Sequence[str]], None]
"""Writes the model quantized, but for the named nodes."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """How much was left in floating point, and what is lost that way: a share of the accuracy, or of the answers."""

    layers: int
    others: int
    loss: float
    held: bool


@dataclass(frozen=True, kw_only=True)
class Split:
    """The items that the search may look at."""

    items: StoredItems
    chosen: list[int]
    of_evaluation: bool

    @classmethod
    def draw(cls, work: Work) -> Self | None:
        """From the other end of the draw than what calibrates: the two meet only in a calibration set that is too
        short for both. None without a set, or with too few items."""
        path = work.evaluation or work.calibration
        if path is None:
            work.journal.info("There is no data set, so what it loses is not looked at.")
            return None
        items = read_npz(path, work.signature)
        most = len(items) // BORROWED_SHARE if work.evaluation else len(items)
        order = np.random.default_rng(work.seed).permutation(len(items))[::-1]
        chosen = sorted(int(index) for index in order[: min(MOST_ITEMS, most)])
        if len(chosen) < FEWEST_ITEMS:
            work.journal.info(
                f"What it loses is not looked at: that takes {FEWEST_ITEMS} items, and {len(chosen)} may be used."
            )
            return None
        return cls(items=items, chosen=chosen, of_evaluation=bool(work.evaluation))


def next_count(held: Mapping[int, bool], *, layers: int) -> int | None:
    """How many of the worst layers to leave alone next, by the counts for which the budget was seen to hold or not:
    twice as many until it does, then between. None where there is nothing between, or no layer would be left."""
    failed = max((count for count, holds in held.items() if not holds), default=0)
    enough = min((count for count, holds in held.items() if holds and count > failed), default=None)
    if enough is not None:
        return (failed + enough) // 2 if enough - failed > 1 else None
    more = max(math.ceil(layers / FIRST_SHARE), 2 * failed)
    return min(more, layers - 1) if failed < layers - 1 else None


def quantize_within_budget(
    work: Work,
    *,
    original: Path,
    quantize: Quantize,
    rounds: int,
    layers: Sequence[str],
    others: Sequence[str] = (),
    format: str = "onnx",
) -> dict[str, Any] | None:
    """Writes `work.output` and says for the provenance how it was found; None where nothing was looked at.

    `layers` are the nodes with weights, `others` what else is quantized; `original`, which is ONNX, holds all of them.
    `format` is what `quantize` writes. Raises
    Unprocessable("budget_not_held") where nothing would be left to quantize. Cost of a round: a quantization, and
    `MOST_ITEMS` runs of both models.
    """
    split = Split.draw(work) if rounds else None
    if split is None:
        quantize(work.output, [])
        return None
    search = _Search(
        work=work, original=original, quantize=quantize, split=split, of=len(layers), format=known(format)
    )
    held, left = search.round([]), []
    if not held and others:
        left = list(others)
        held = search.round([], others=left)
    ranked: dict[str, float] = {}
    tried = {0: held}
    while not tried[0] and len(search.rounds) <= rounds:
        count = next_count(tried, layers=len(layers))
        if count is None:
            break
        ranked = ranked or search.worst_first(layers)
        tried[count] = search.round(list(ranked)[:count], others=left)
    if not any(tried.values()) and next_count(tried, layers=len(layers)) is None:
        raise Unprocessable(
            "budget_not_held",
            "No part of this model can be quantized within the loss that its gate allows.",
            f"With one of {len(layers)} layers left to quantize, {search.lost(search.rounds[-1].loss)}. Allow a "
            "larger loss in the gate, choose another technique, or set the rounds of repair to 0 to see it measured.",
        )
    return search.end(ranked)


def fitted_to(repair: Mapping[str, Any] | None) -> list[int]:
    """Items of the evaluation set that the search looked at."""
    return list(repair["evaluation_items"]) if repair else []


@dataclass(kw_only=True)
class _Search:
    work: Work
    original: Path
    quantize: Quantize
    split: Split
    of: int
    format: Format
    rounds: list[Round] = field(default_factory=list)
    left: list[list[str]] = field(default_factory=list)
    basis: Basis = Basis.EVALUATION_SET
    measure: str = ""
    limit: float = 0.0

    def _file(self, index: int) -> Path:
        return self.work.scratch / f"round-{index}{self.format.suffix}"

    def round(self, worst: Sequence[str], *, others: Sequence[str] = ()) -> bool:
        """Quantizes all but these and looks at what that loses. Returns whether the budget holds."""
        made = self._file(len(self.rounds))
        self.quantize(made, [*others, *worst])
        loss = self._loss(made)
        row = Round(layers=len(worst), others=len(others), loss=loss, held=loss <= self.limit)
        self.rounds.append(row)
        self.left.append(list(worst))
        said = f"{_in_float(worst, others, of=self.of)}: {self.lost(loss)}, {_percent(self.limit)} may."
        (self.work.journal.info if row.held else self.work.journal.warning)(said)
        return row.held

    def _loss(self, made: Path) -> float:
        """Outputs that cannot be used lose everything."""
        try:
            found = accuracy.compare(
                parent=_answers(self.original, self.work, format="onnx"),
                variant=_answers(made, self.work, format=self.format.key),
                items=self.split.items,
                left_out=frozenset(range(len(self.split.items))) - set(self.split.chosen),
                signature=self.work.signature,
                metric=self.work.metric if self.split.of_evaluation else "",
                answers=self.work.answers,
                basis=self.basis,
                budget_s=BUDGET_S,
                seed=self.work.seed,
                on_progress=self.work.journal.progress,
            )
        except accuracy.UnusableOutputs:
            return 1.0
        evidence = found.evidence()
        self.basis, self.limit = found.basis, loss_limit(evidence, self.work.policy)
        self.measure = evidence.measure if evidence.in_points else ""
        return found.loss.value

    def lost(self, loss: float) -> str:
        what = f"of {self.measure} is lost" if self.measure else "of the answers are others"
        return f"{_percent(max(0.0, loss))} {what} on {len(self.split.chosen)} items"

    def worst_first(self, layers: Sequence[str]) -> dict[str, float]:
        """Decibels by layer, from the one that integers harm most. Only a quantized ONNX model tells its ranges."""
        feeds = [self.split.items.feed([index]) for index in self.split.chosen[:RANKED_ITEMS]]
        made = self._file(len(self.rounds) - 1)
        ranges = ranges_of(read(made)) if self.format.key == "onnx" else {}
        found = signal_to_noise(read(self.original), layers, ranges=ranges, feeds=feeds)
        return dict(sorted(found.items(), key=lambda row: row[1]))

    def end(self, ranked: Mapping[str, float]) -> dict[str, Any]:
        """Keeps the round that holds the budget with the least left in float; else the one that loses least."""
        best = min(
            range(len(self.rounds)),
            key=lambda index: (
                not self.rounds[index].held,
                len(self.left[index]) if self.rounds[index].held else self.rounds[index].loss,
            ),
        )
        self._file(best).replace(self.work.output)
        if not self.rounds[best].held:
            self.work.journal.warning("The budget does not hold; this is the version that loses least.")
        return {
            "items": len(self.split.chosen),
            "evaluation_items": self.split.chosen if self.split.of_evaluation else [],
            "limit": self.limit,
            "basis": self.basis.value,
            "rounds": [asdict(row) for row in self.rounds],
            "round": best,
            "left_in_float": self.left[best],
            "signal_to_noise_db": {
                name: round(value, 1) for name, value in ranked.items() if math.isfinite(value)
            },
        }


def _answers(path: Path, work: Work, *, format: str) -> accuracy.Run:
    session, names = open_as(format, path), [spec.name for spec in work.signature.outputs]
    return lambda feed: dict(zip(names, session.run(names, feed), strict=True))


def _in_float(worst: Sequence[str], others: Sequence[str], *, of: int) -> str:
    named = ", ".join(f"“{name}”" for name in worst[:NAMED])
    more = f" and {len(worst) - NAMED} more" if len(worst) > NAMED else ""
    if worst:
        return f"With {len(worst)} of {of} layers in float ({named}{more})"
    return "With only the layers quantized" if others else "With everything quantized"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
