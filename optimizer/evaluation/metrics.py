"""How answers are scored, against labels or against the parent's: the scorers of `controlplane.registry.metrics`.

A scorer keeps what matters of each item (`reads`), once for the parent and once for the variant, and makes one score of
any weighted selection of items (`over`). The interval is the bootstrap's over items, in pairs: both sides see the same
selection, so what is hard about an item is hard for both. Refused: a formula for each metric's interval, except for
top-1, whose exact one stays in `statistics`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from controlplane.core.errors import Unprocessable
from controlplane.registry.metrics import Metric
from optimizer.domain.statistics import PairedScores, Score, Weights, bootstrap
from optimizer.workbench.signature import Array

type Answer = Sequence[Array]
"""Of one item, the outputs that the metric reads."""


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """`reads(answer, truth)` makes a value that equals another where the item is answered alike; where that is a tuple
    of one number it is the item's own score. `over(reads)` scores a selection of them, higher where answers are better;
    None where no item has anything to score. `truth(answer)` is what the parent's answer stands for where there is no
    label."""

    reads: Callable[[Answer, Any], tuple[Any, ...]]
    over: Callable[[Sequence[Any]], Score | None]
    truth: Callable[[Answer], Any] = lambda answer: answer[0]


def class_of(answer: Array) -> int:
    """As top-1 reads it: the largest score, else the number itself; one score is a probability or a logit."""
    flat = answer.reshape(-1)
    if answer.dtype.kind == "f" and flat.size > 1:
        return int(flat.argmax())
    if answer.dtype.kind == "f":
        return int(flat[0] > (0.5 if 0 <= flat[0] <= 1 else 0.0))
    return int(flat[0])


def _classes(answer: Answer, label: Any) -> tuple[float, ...]:
    return float(label), float(class_of(answer[0]))


def _f1(reads: Sequence[tuple[float, float]]) -> Score:
    """Mean over the classes that are among labels or answers of 2 tp / (2 tp + fp + fn), as scikit-learn's macro F1."""
    numbers = np.array(reads)
    known, codes = np.unique(numbers, return_inverse=True)
    truth, said = codes.reshape(numbers.shape).T

    def score(weights: Weights) -> float:
        def by_class(codes: Array, each: Weights) -> Weights:
            return np.bincount(codes, weights=each, minlength=known.size).astype(np.float64)

        hits = by_class(truth, np.where(truth == said, weights, 0.0))
        both = by_class(truth, weights) + by_class(said, weights)
        seen = both > 0
        return float(np.mean(2 * hits[seen] / both[seen]))

    return score


def _value(answer: Answer, label: Any) -> tuple[float, ...]:
    return float(label), float(answer[0].reshape(-1)[0])


def _explained(reads: Sequence[tuple[float, float]]) -> Score:
    """1 − squared errors / squared distances of the labels from their mean, as scikit-learn's; 0 where they are all the
    same."""
    truth, said = np.array(reads).T

    def score(weights: Weights) -> float:
        spread = float(weights @ (truth - np.average(truth, weights=weights)) ** 2)
        return 1 - float(weights @ (truth - said) ** 2) / spread if spread else 0.0

    return score


def _cosine(answer: Answer, label: Any) -> tuple[float]:
    """0 where either has no direction."""
    a, b = (np.asarray(each, dtype=np.float64).reshape(-1) for each in (answer[0], label))
    if a.size != b.size:
        raise Unprocessable(
            "metric_unfit",
            "The labels cannot be scored that way.",
            f"The output has {a.size:,} numbers for an item, its label {b.size:,}.",
        )
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return (float(np.dot(a, b)) / norms if norms else 0.0,)


def _mean(reads: Sequence[tuple[float]]) -> Score:
    numbers = np.array(reads)[:, 0]
    return lambda weights: float(np.average(numbers, weights=weights))


def _words(answer: Answer, label: Any) -> tuple[float, ...]:
    """Errors (substituted, left out, put in) and the words of the label."""
    said, truth = _sequence(answer[0]), _sequence(np.asarray(label))
    return float(edits(said, truth)), float(len(truth))


def _sequence(value: Array) -> list[Any]:
    """Words of a text, or numbers without the padding of −1."""
    if value.dtype.kind in "iu":
        return [number for number in value.reshape(-1).tolist() if number != -1]
    text = value.reshape(-1)[0]
    return (text.decode(errors="replace") if isinstance(text, bytes) else str(text)).split()


def edits(said: Sequence[Any], truth: Sequence[Any]) -> int:
    """Levenshtein's distance between two sequences. Cost: the product of their lengths."""
    row = list(range(len(truth) + 1))
    for at, one in enumerate(said, start=1):
        before, row[0] = row[0], at
        for index, other in enumerate(truth, start=1):
            before, row[index] = row[index], min(row[index] + 1, row[index - 1] + 1, before + (one != other))
    return row[-1]


def _words_right(reads: Sequence[tuple[float, float]]) -> Score:
    """1 − errors / words over the whole set, as word error rates are pooled; below 0 where more is wrong than said."""
    numbers = np.array(reads)

    def score(weights: Weights) -> float:
        errors, words = weights @ numbers
        return float(1 - errors / max(words, 1.0))

    return score


F1 = Scorer(reads=_classes, over=_f1)
R2 = Scorer(reads=_value, over=_explained)
COSINE = Scorer(reads=_cosine, over=_mean)
WORDS = Scorer(reads=_words, over=_words_right)


def scorer_of(metric: Metric) -> Scorer:
    module, _, name = metric.scorer.partition(":")
    found: Scorer = getattr(import_module(module), name)
    return found


@dataclass(kw_only=True)
class Scoring:
    """Collects what a metric reads, item by item."""

    metric: Metric
    outputs: tuple[str, ...]
    parent: list[tuple[Any, ...]] = field(default_factory=list)
    variant: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._scorer = scorer_of(self.metric)

    def add(self, parent: Answer, variant: Answer, label: Any | None) -> None:
        truth = self._scorer.truth(parent) if label is None else label
        self.parent.append(self._scorer.reads(parent, truth))
        self.variant.append(self._scorer.reads(variant, truth))

    @property
    def least(self) -> float | None:
        """Of any item of the variant, where an item has a score of its own."""
        alone = [read[0] for read in self.variant if len(read) == 1]
        return min(alone) if alone else None

    def scores(self, *, seed: int) -> PairedScores | None:
        """None where there is nothing to score."""
        parent, variant = self._scorer.over(self.parent), self._scorer.over(self.variant)
        if parent is None or variant is None:
            return None
        differing = sum(a != b for a, b in zip(self.parent, self.variant, strict=True))
        return bootstrap(parent, variant, len(self.parent), differing=differing, seed=seed)
