"""How far the variant's answers are from the parent's, and from the truth where it is known.

Both sides see the same items in the same batches, so every difference is a pair. Which question decides: labels ask
for accuracy; without them the model's task says what agreement is (see `registry.answers`). Labels beat agreement,
because a variant may change answers and still be as good. Positions that a mask leaves out are padding and never count.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from controlplane.registry import metrics as known_metrics
from controlplane.registry.answers import CLASSIFICATION, NO_POOLING, OTHER, Answers
from optimizer.domain.statistics import Estimate, complement, paired_loss, wilson
from optimizer.domain.verdict import Basis, Fidelity
from optimizer.evaluation.outputs import TOLERANCE, Output, OutputDifference
from optimizer.evaluation.question import Question, View
from optimizer.workbench.items import Items, batches, is_classes
from optimizer.workbench.signature import Array, Feed, Signature

type Run = Callable[[Feed], Mapping[str, Array]]


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """`compared` of `available` items: those of the set that were not left out. `how` says in words what agreement
    means here. `loss` is in `measure`, which `metric` computes: against labels, else against the parent's answers;
    without a metric it is the share of items that disagree. `lost` and `gained` are None where answers are not simply
    right or wrong. `least`: of any item of the variant. `output` decides, "" where all do; `pooling` of its positions.
    """

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
    task: str = OTHER
    output: str = ""
    pooling: str = NO_POOLING
    metric: str | None = None
    measure: str = "accuracy"
    least: float | None = None

    def evidence(self) -> Fidelity:
        return Fidelity(basis=self.basis, loss=self.loss, measure=self.measure)


class UnusableOutputs(Exception):
    """The variant's answers cannot be used at all; the message is the reason, for a person."""


ENOUGH_ITEMS = 1000
"""With fewer, an accuracy that is well within its limit cannot be told from one that is not."""
PATIENCE = 4
BATCH_SIZE = 8


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
    metric: str = "",
    answers: Answers | None = None,
    batch_size: int = BATCH_SIZE,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Accuracy:
    """Runs both sides over the items that are not left out in a random order, until all are done or the time is up.

    Raises UnusableOutputs when the variant answers NaN or infinity where the parent does not, or cannot run.
    Items on which the parent itself is not finite are left out. Cost: the budget; up to `PATIENCE` times that
    where the machine is too slow to compare `ENOUGH_ITEMS` in it.
    """
    drawn = np.random.default_rng(seed).permutation(len(items))
    order = [int(index) for index in drawn if int(index) not in left_out]
    outputs = {spec.name: Output(name=spec.name) for spec in signature.outputs}
    question = Question.of(answers or Answers(), metric=metric, items=items, signature=signature)
    view = View.of(question, signature)
    seen: list[int] = []
    size = batch_size if signature.batched else 1
    deadline = time.monotonic() + budget_s
    for batch in batches(len(order), size):
        chosen = [order[index] for index in batch]
        seen.extend(
            _add(
                chosen,
                parent=parent,
                variant=variant,
                items=items,
                signature=signature,
                outputs=outputs,
                question=question,
                view=view,
            )
        )
        on_progress(batch.stop, len(order))
        late = time.monotonic() - deadline
        if late >= 0 and (len(seen) >= ENOUGH_ITEMS or late >= (PATIENCE - 1) * budget_s):
            break
    if not seen:
        raise UnusableOutputs(
            "the parent answers NaN or infinity on every item, so there is nothing to compare with."
        )
    result = _result(outputs, question, basis=basis, seen=seen, available=len(order), items=items, seed=seed)
    return replace(result, how=f"{result.how}{view.in_words(result.output)}")


def _scored(result: Accuracy, question: Question, *, seed: int) -> Accuracy:
    scoring = question.scoring
    if scoring is None:
        return result
    scores, row = scoring.scores(seed=seed), scoring.metric
    if scores is None:
        return replace(result, how=f"{result.how}, as there is nothing to score by {row.label}")
    scored = replace(
        result,
        metric=row.key,
        loss=scores.loss,
        least=scoring.least,
        lost=None,
        gained=None,
        output=question.output,
    )
    if not question.labelled:
        how = f"{row.agreement} from “{question.output}”"
        return replace(scored, measure=row.agreement, agreement=scores.variant, how=how)
    return replace(
        scored,
        basis=Basis.LABELS,
        measure=row.measure,
        parent_accuracy=scores.parent,
        variant_accuracy=scores.variant,
    )


def _add(
    chosen: list[int],
    *,
    parent: Run,
    variant: Run,
    items: Items,
    signature: Signature,
    outputs: Mapping[str, Output],
    question: Question,
    view: View,
) -> list[int]:
    """Compares one batch and returns the items that counted."""
    feed = items.feed(chosen)
    theirs, ours = parent(feed), variant(feed)
    kept = []
    for position, item in enumerate(chosen):
        answers = {
            name: (
                view.answer(name, theirs[name], position, feed),
                view.answer(name, ours[name], position, feed),
            )
            for name in outputs
        }
        if not all(_finite(a) for a, _ in answers.values()):
            continue
        for name, (a, b) in answers.items():
            if not _finite(b):
                raise UnusableOutputs(f"output “{name}” is NaN or infinite where the parent's is a number.")
            outputs[name].add(a, b)
        if question.scoring is not None:
            theirs_, ours_ = zip(*(answers[name] for name in question.scoring.outputs), strict=True)
            label = items.labels[item] if question.labelled and items.labels is not None else None
            question.scoring.add(theirs_, ours_, label)
        kept.append(item)
    return kept


def _finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _result(
    outputs: Mapping[str, Output],
    question: Question,
    *,
    basis: Basis,
    seen: list[int],
    available: int,
    items: Items,
    seed: int,
) -> Accuracy:
    labels = items.labels if items.labels is not None and is_classes(items.labels) else None
    deciding = _classifier(outputs, question)
    if deciding is not None:
        agrees = [a == b for a, b in zip(deciding.parent_class, deciding.variant_class, strict=True)]
        how = f"the same class from “{deciding.name}”"
    else:
        counting = [outputs[question.output]] if question.output else list(outputs.values())
        agrees = [all(column) for column in zip(*(output.close() for output in counting), strict=True)]
        what = f"“{question.output}”" if question.output else "every output"
        how = f"{what} within {TOLERANCE:.0%} of how much the parent's own answers vary"
    result = Accuracy(
        basis=basis,
        how=how,
        compared=len(seen),
        available=available,
        agreement=wilson(sum(agrees), len(agrees)),
        parent_accuracy=None,
        variant_accuracy=None,
        lost=None,
        gained=None,
        loss=complement(wilson(sum(agrees), len(agrees), confidence=0.90)),
        outputs=tuple(output.difference() for output in outputs.values() if output.numeric),
        task=question.task,
        output=deciding.name if deciding is not None else question.output,
        pooling=question.pooling,
    )
    if labels is not None and deciding is not None and question.scoring is None:
        return _top_1(result, deciding, truths=labels[seen])
    return _scored(result, question, seed=seed)


def _top_1(result: Accuracy, deciding: Output, *, truths: Array) -> Accuracy:
    before, after = np.array(deciding.parent_class) == truths, np.array(deciding.variant_class) == truths
    lost, gained, n = int(np.sum(before & ~after)), int(np.sum(~before & after)), len(truths)
    return replace(
        result,
        basis=Basis.LABELS,
        metric=known_metrics.TOP_1,
        measure=known_metrics.metric(known_metrics.TOP_1).measure,
        parent_accuracy=wilson(int(before.sum()), n),
        variant_accuracy=wilson(int(after.sum()), n),
        lost=lost,
        gained=gained,
        loss=paired_loss(lost=lost, gained=gained, n=n),
    )


def _classifier(outputs: Mapping[str, Output], question: Question) -> Output | None:
    """The output that names a class, if classes are what is compared. Without labels, and where the task is not known
    to be that, only rows of probabilities and class numbers are believed."""
    sure = question.labelled or question.task == CLASSIFICATION
    if not sure and question.task != OTHER:
        return None
    whole = [
        output
        for output in outputs.values()
        if output.numeric and 0 < len(output.parent_class) == len(output.equal)
    ]
    by_trust = [
        *(output for output in whole if output.name == question.output and sure),
        *(output for output in whole if output.probabilities and output.classes > 1),
        *(output for output in whole if output.classes > 1 and sure),
        *(output for output in whole if output.classes == 1 and sure),
    ]
    return by_trust[0] if by_trust else None
