"""What is kept of one output while two models answer: numbers per item, never the answers themselves."""

from dataclasses import dataclass, field

import numpy as np

from optimizer.workbench.signature import Array

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


@dataclass(kw_only=True)
class Output:
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
        if parent.dtype.kind not in "fiub":
            self.numeric = False
            return
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
