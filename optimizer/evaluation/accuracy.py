"""How far the variant's answers are from the parent's, and from the truth where it is known.

Both sides see the same items in the same batches, so every difference is a pair. Which question decides:
labels ask for accuracy; a classifier without labels for the same class; anything else for values that stay
within a fraction of how much the parent's own answers vary. Labels beat agreement, because a variant may
change answers and still be as good.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optimizer.domain.statistics import Estimate, complement, paired_loss, wilson
from optimizer.domain.verdict import Basis, Fidelity
from optimizer.workbench.items import Items, batches
from optimizer.workbench.signature import Array, Feed, Signature

type Run = Callable[[Feed], Mapping[str, Array]]

# About a cosine of 0.99 for vectors of length one.
TOLERANCE = 0.15


@dataclass(frozen=True, kw_only=True)
class OutputDifference:
    """Over all items. `relative_error`: root mean square of the difference, over the spread of the parent's values."""

    name: str
    max_abs_difference: float
    cosine_mean: float | None
    cosine_min: float | None
    relative_error: float


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """`compared` of `available` items: those of the set that were not left out. `how` says in words what
    agreement means here."""

    basis: Basis
    how: str
    compared: int
    available: int
    agreement: Estimate
    parent_accuracy: Estimate | None
    variant_accuracy: Estimate | None
    lost: int | None
    gained: int | None
    loss: Estimate
    outputs: tuple[OutputDifference, ...]

    def evidence(self) -> Fidelity:
        return Fidelity(basis=self.basis, loss=self.loss)


class UnusableOutputs(Exception):
    """The variant's answers cannot be used at all; the message is the reason, for a person."""


@dataclass(kw_only=True)
class _Output:
    """What is kept of one output: per item numbers, never the outputs themselves."""

    name: str
    squared_difference: list[float] = field(default_factory=list)
    squared_norm: list[float] = field(default_factory=list)
    cosine: list[float] = field(default_factory=list)
    parent_class: list[int] = field(default_factory=list)
    variant_class: list[int] = field(default_factory=list)
    equal: list[bool] = field(default_factory=list)
    max_abs: float = 0.0
    classes: int = 0
    probabilities: bool = True
    numeric: bool = True
    exact: bool = False
    total: Array | None = None
    summable: bool = True

    def add(self, parent: Array, variant: Array) -> None:
        if parent.shape != variant.shape:
            self._disagree(parent)
            return
        self.equal.append(bool(np.array_equal(parent, variant)))
        if parent.dtype.kind not in "fiub":
            self.numeric = False
            return
        a, b = parent.astype(np.float64).reshape(-1), variant.astype(np.float64).reshape(-1)
        self.squared_difference.append(float(np.sum((a - b) ** 2)))
        self.squared_norm.append(float(np.sum(a**2)))
        self.max_abs = max(self.max_abs, float(np.max(np.abs(a - b), initial=0.0)))
        self.exact = self.exact or parent.dtype.kind != "f"
        self._sum(a)
        norms = float(np.linalg.norm(a) * np.linalg.norm(b))
        if a.size > 1 and norms > 0:
            self.cosine.append(float(np.dot(a, b)) / norms)
        if np.squeeze(parent).ndim <= 1:
            self._classify(parent, a, b)

    def _disagree(self, parent: Array) -> None:
        """An answer of another size (a detector that found another number of boxes) is just another answer."""
        self.equal.append(False)
        self.summable = False
        self.squared_difference.append(float("inf"))
        self.squared_norm.append(float(np.sum(np.square(parent.astype(np.float64)))))
        self.parent_class.append(-1)
        self.variant_class.append(-2)

    def _sum(self, a: Array) -> None:
        if self.total is None:
            self.total = np.zeros_like(a)
        self.summable = self.summable and self.total.shape == a.shape
        if self.summable:
            self.total += a

    def _classify(self, parent: Array, a: Array, b: Array) -> None:
        floats = parent.dtype.kind == "f"
        self.classes = a.size if floats else 1
        self.probabilities = self.probabilities and floats and bool(a.min(initial=0) >= 0)
        if floats and a.size > 1:
            self.probabilities = self.probabilities and abs(float(a.sum()) - 1) < 1e-2
            self.parent_class.append(int(a.argmax()))
            self.variant_class.append(int(b.argmax()))
        elif a.size == 1:
            # One number: a probability, or a logit.
            edge = 0.5 if floats and 0 <= a[0] <= 1 else 0.0
            self.parent_class.append(int(a[0] > edge) if floats else int(a[0]))
            self.variant_class.append(int(b[0] > edge) if floats else int(b[0]))

    @property
    def spread(self) -> float:
        """Root mean square distance of the parent's answers from their own mean; their size if they never vary."""
        n = len(self.squared_norm)
        mean_square = float(np.mean(self.squared_norm)) if n else 0.0
        center = (
            float(np.sum((self.total / n) ** 2)) if n and self.summable and self.total is not None else 0.0
        )
        varies = mean_square - center
        return float(np.sqrt(varies if varies > 1e-9 * mean_square else mean_square))

    def close(self) -> list[bool]:
        """Per item: the same values, as far as it matters."""
        if self.exact or not self.numeric:
            return self.equal
        limit = TOLERANCE * self.spread
        return [difference <= limit**2 for difference in self.squared_difference]

    def difference(self) -> OutputDifference:
        finite = [value for value in self.squared_difference if np.isfinite(value)]
        error = float(np.sqrt(np.mean(finite))) if finite else 0.0
        return OutputDifference(
            name=self.name,
            max_abs_difference=self.max_abs,
            cosine_mean=float(np.mean(self.cosine)) if self.cosine else None,
            cosine_min=float(np.min(self.cosine)) if self.cosine else None,
            relative_error=error / self.spread if error else 0.0,
        )


ENOUGH_ITEMS = 1000
"""With fewer, an accuracy that is well within its limit cannot be told from one that is not."""
PATIENCE = 4


def compare(
    *,
    parent: Run,
    variant: Run,
    items: Items,
    signature: Signature,
    basis: Basis,
    budget_s: float,
    seed: int,
    left_out: frozenset[int] = frozenset(),
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Accuracy:
    """Runs both sides over the items that are not left out in a random order, until all are done or the time is up.

    Raises UnusableOutputs when the variant answers NaN or infinity where the parent does not, or cannot run.
    Items on which the parent itself is not finite are left out. Cost: the budget; up to `PATIENCE` times that
    where the machine is too slow to compare `ENOUGH_ITEMS` in it.
    """
    drawn = np.random.default_rng(seed).permutation(len(items))
    order = [int(index) for index in drawn if int(index) not in left_out]
    outputs = {spec.name: _Output(name=spec.name) for spec in signature.outputs}
    seen: list[int] = []
    size = batch_size if signature.batched else 1
    deadline = time.monotonic() + budget_s
    for batch in batches(len(order), size):
        chosen = [order[index] for index in batch]
        seen.extend(
            _add(chosen, parent=parent, variant=variant, items=items, signature=signature, outputs=outputs)
        )
        on_progress(batch.stop, len(order))
        late = time.monotonic() - deadline
        if late >= 0 and (len(seen) >= ENOUGH_ITEMS or late >= (PATIENCE - 1) * budget_s):
            break
    if not seen:
        raise UnusableOutputs(
            "the parent answers NaN or infinity on every item, so there is nothing to compare with."
        )
    return _result(outputs, basis=basis, seen=seen, available=len(order), items=items)


def _add(
    chosen: list[int],
    *,
    parent: Run,
    variant: Run,
    items: Items,
    signature: Signature,
    outputs: Mapping[str, _Output],
) -> list[int]:
    """Compares one batch and returns the items that counted."""
    feed = items.feed(chosen)
    theirs, ours = parent(feed), variant(feed)
    kept = []
    for position, item in enumerate(chosen):
        answers = {
            name: (_answer(theirs[name], position, signature), _answer(ours[name], position, signature))
            for name in outputs
        }
        if not all(_finite(theirs_) for theirs_, _ in answers.values()):
            continue
        for name, (a, b) in answers.items():
            if not _finite(b):
                raise UnusableOutputs(f"output “{name}” is NaN or infinite where the parent's is a number.")
            outputs[name].add(a, b)
        kept.append(item)
    return kept


def _answer(array: Array, position: int, signature: Signature) -> Array:
    return np.asarray(array[position] if signature.batched and array.ndim else array)


def _finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _result(
    outputs: Mapping[str, _Output], *, basis: Basis, seen: list[int], available: int, items: Items
) -> Accuracy:
    deciding = _classifier(outputs, labelled=items.labels is not None)
    if deciding is not None and deciding.parent_class:
        agrees = [a == b for a, b in zip(deciding.parent_class, deciding.variant_class, strict=True)]
        how = f"the same class from “{deciding.name}”"
    else:
        agrees = [
            all(column) for column in zip(*(output.close() for output in outputs.values()), strict=True)
        ]
        how = f"every output within {TOLERANCE:.0%} of how much the parent's own answers vary"
    truth: dict[str, Any] = dict.fromkeys(("parent_accuracy", "variant_accuracy", "lost", "gained"))
    loss = complement(wilson(sum(agrees), len(agrees), confidence=0.90))
    if items.labels is not None and deciding is not None and deciding.parent_class:
        basis = Basis.LABELS
        labels = items.labels[seen]
        before, after = np.array(deciding.parent_class) == labels, np.array(deciding.variant_class) == labels
        lost, gained = int(np.sum(before & ~after)), int(np.sum(~before & after))
        truth = {
            "parent_accuracy": wilson(int(before.sum()), len(seen)),
            "variant_accuracy": wilson(int(after.sum()), len(seen)),
            "lost": lost,
            "gained": gained,
        }
        loss = paired_loss(lost=lost, gained=gained, n=len(seen))
    return Accuracy(
        basis=basis,
        how=how,
        compared=len(seen),
        available=available,
        agreement=wilson(sum(agrees), len(agrees)),
        loss=loss,
        outputs=tuple(output.difference() for output in outputs.values() if output.numeric),
        **truth,
    )


def _classifier(outputs: Mapping[str, _Output], *, labelled: bool) -> _Output | None:
    """The output that names a class. Without labels only rows of probabilities and class numbers are believed."""
    whole = [output for output in outputs.values() if output.numeric and output.parent_class]
    by_trust = [
        *(output for output in whole if output.probabilities and output.classes > 1),
        *(output for output in whole if output.classes > 1 and (labelled or "logit" in output.name.lower())),
        *(output for output in whole if output.classes == 1 and labelled),
    ]
    return by_trust[0] if by_trust else None
