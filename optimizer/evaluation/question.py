"""What is asked of answers, by labels or by the model's task, and what of each answer is looked at.

Positions that a mask among the inputs leaves out are padding: what a model says there is nobody's business, and a
variant may say something else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from controlplane.registry import metrics as known_metrics
from controlplane.registry.answers import MEAN, Answers, mask_of
from optimizer.evaluation.metrics import Scoring
from optimizer.workbench.items import Items, is_classes, label_summary
from optimizer.workbench.signature import Array, Feed, Signature


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of the answers. `scoring`, where there is one, decides; `labelled` where it is against labels.
    `output` is the one that counts, "" for all."""

    task: str
    output: str
    pooling: str
    scoring: Scoring | None = None
    labelled: bool = False

    @classmethod
    def of(cls, answers: Answers, *, metric: str, items: Items, signature: Signature) -> Self:
        """Raises Unprocessable where no output can be scored by the metric that was asked for."""
        document = signature.to_json()
        settled = answers.settled(document)
        asked = cls(task=settled.task, output=settled.output, pooling=settled.pooling)
        if items.labels is not None and metric:
            labels = label_summary(items.labels)
            known_metrics.chosen(metric, labels=labels, signature=document, answers=answers)
            if metric == known_metrics.TOP_1:
                return replace(asked, labelled=True)
            row = known_metrics.metric(metric)
            found = known_metrics.reading(row, labels, document, answers)
            assert found is not None
        elif by_task := known_metrics.comparing(answers, document):
            row, found = by_task
        else:
            return replace(asked, labelled=items.labels is not None and is_classes(items.labels))
        return replace(
            asked,
            output=found.outputs[0],
            pooling=found.pooling,
            scoring=Scoring(metric=row, outputs=found.outputs),
            labelled=items.labels is not None and bool(metric),
        )


@dataclass(frozen=True, kw_only=True)
class View:
    """How an answer is looked at. `masks`: the input that says which positions of an output are no padding."""

    signature: Signature
    pooling: str
    masks: Mapping[str, str]

    @classmethod
    def of(cls, question: Question, signature: Signature) -> Self:
        document = signature.to_json()
        found = {port["name"]: mask_of(port, document) for port in document["outputs"]}
        masks = {name: mask for name, mask in found.items() if mask}
        return cls(signature=signature, pooling=question.pooling, masks=masks)

    def answer(self, name: str, array: Array, position: int, feed: Feed) -> Array:
        answer = self._item(array, position)
        if name in self.masks:
            counts = self._item(feed[self.masks[name]], position) != 0
            if counts.any() and answer.shape[: counts.ndim] == counts.shape:
                answer = answer[counts]
        if self.pooling == MEAN and answer.ndim > 1 and answer.size:
            rows = answer.reshape(-1, answer.shape[-1])
            answer = rows.mean(axis=0, dtype=np.float64).astype(answer.dtype)
        return answer

    def _item(self, array: Array, position: int) -> Array:
        return np.asarray(array[position] if self.signature.batched and array.ndim else array)

    def in_words(self, output: str) -> str:
        """What of the answers counts, to go on with after what decides."""
        mask = next((mask for name, mask in self.masks.items() if output in ("", name)), None)
        pooled = ", the mean over its positions" if self.pooling == MEAN else ""
        return pooled + (f", without the positions that “{mask}” leaves out" if mask else "")
