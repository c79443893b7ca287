"""The port of a metric: which labels and outputs it takes, what its score is called, and who computes it.

Declaring one computes nothing: the scorer is imported only in the child process that measures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.registry.answers import Port

type Labels = Mapping[str, Any]
CLASSES, NUMBERS, VECTORS, TEXTS, TOKENS = "classes", "numbers", "vectors", "texts", "tokens"
LABELS_IN_WORDS = {
    CLASSES: "class numbers",
    NUMBERS: "numbers",
    VECTORS: "vectors",
    TEXTS: "texts",
    TOKENS: "rows of token numbers",
}
MAX_KEY = 20


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Every score is higher where answers are better, so that a loss is a loss in points whatever the metric.

    `key` has at most MAX_KEY characters. `measure` is how sentences call the score, `agreement` the same against the
    parent's answers, "" where there is no such thing. `wants` are kinds of labels, `task` is whose answers it compares
    where there are none. `finds(ports, labels)` names the outputs that it scores, by their shapes for one item, and
    `expects` says the same in words; `labels` is None where the parent's answers stand for them. `scorer` is the dotted
    path of a `Scorer` (see `optimizer.evaluation.metrics`); "" for one that has an exact interval of its own."""

    key: str
    label: str
    measure: str
    wants: tuple[str, ...]
    expects: str
    finds: Callable[[Sequence[Port], Labels | None], tuple[str, ...]]
    scorer: str
    task: str
    agreement: str = ""

    def __post_init__(self) -> None:
        if not 0 < len(self.key) <= MAX_KEY:
            raise ValueError(f"a metric's key has 1 to {MAX_KEY} characters: {self.key!r}")


def kind_of(labels: Labels) -> str:
    return str(labels.get("kind", CLASSES))
