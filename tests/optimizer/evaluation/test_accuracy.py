"""Fidelity on made answers: which question decides, and what makes answers unusable."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from optimizer.domain.verdict import Basis
from optimizer.evaluation import accuracy
from optimizer.evaluation.accuracy import Accuracy, UnusableOutputs
from optimizer.workbench.items import StoredItems
from optimizer.workbench.signature import Signature
from tests.optimizer import onnx_models

N = 400
ITEMS = np.arange(N, dtype=np.float32)


def compared(
    parent: Callable[[Any], Any],
    variant: Callable[[Any], Any],
    *,
    labels: Any = None,
    output: str = "y",
    basis: Basis = Basis.EVALUATION_SET,
    budget_s: float = 60,
) -> Accuracy:
    signature = Signature.from_json(
        onnx_models.signature([("x", "FP32", ["n"])], [(output, "FP32", ["n", "k"])])
    )
    return accuracy.compare(
        parent=lambda feed: {output: parent(feed["x"])},
        variant=lambda feed: {output: variant(feed["x"])},
        items=StoredItems(arrays={"x": ITEMS}, labels=labels, batched=True),
        signature=signature,
        basis=basis,
        budget_s=budget_s,
        seed=0,
    )


def one_hot(classes: Any, *, certain: float = 0.9) -> Any:
    rows = np.full((len(classes), 4), (1 - certain) / 3, dtype=np.float32)
    rows[np.arange(len(classes)), classes.astype(int)] = certain
    return rows


def truth(x: Any) -> Any:
    return x % 4


def wrong_below(limit: int) -> Callable[[Any], Any]:
    return lambda x: one_hot(np.where(x < limit, (x + 1) % 4, x % 4))


def test_with_labels_the_loss_is_what_turned_wrong_less_what_turned_right() -> None:
    found = compared(wrong_below(10), wrong_below(30), labels=truth(ITEMS).astype(int))
    assert (found.lost, found.gained) == (20, 0)
    assert found.basis is Basis.LABELS
    assert found.loss.value == pytest.approx(20 / N)
    assert found.parent_accuracy is not None
    assert found.parent_accuracy.value == pytest.approx(390 / N)


def test_a_variant_that_corrects_its_parent_loses_nothing_though_it_disagrees() -> None:
    found = compared(wrong_below(30), wrong_below(10), labels=truth(ITEMS).astype(int))
    assert found.loss.value == pytest.approx(-20 / N)
    assert found.agreement.value == pytest.approx(380 / N)


def test_without_labels_a_row_of_probabilities_is_asked_for_its_class() -> None:
    found = compared(wrong_below(0), lambda x: one_hot(truth(x), certain=0.4))
    assert found.how == "the same class from “y”"
    assert found.agreement.value == 1
    assert found.outputs[0].max_abs_difference == pytest.approx(0.5)


def test_logits_are_a_class_only_where_labels_or_their_name_say_so() -> None:
    def logits(x: Any) -> Any:
        return 7 * one_hot(truth(x)) - 3

    assert compared(logits, logits).how.startswith("every output within 15%")
    assert compared(logits, logits, output="logits").how == "the same class from “logits”"
    assert compared(logits, logits, labels=truth(ITEMS).astype(int)).parent_accuracy is not None


def test_a_single_probability_is_a_class_against_labels() -> None:
    def chance(x: Any) -> Any:
        return np.where(x < 100, 0.9, 0.1).astype(np.float32)[:, None]

    found = compared(chance, lambda x: 1 - chance(x), labels=(ITEMS < 100).astype(int))
    assert (found.lost, found.gained) == (N, 0)


def test_other_values_must_stay_near_by_how_much_the_parents_vary() -> None:
    """A price around a thousand that varies by ten: an error of nine is all of it, not one percent."""

    def price(x: Any) -> Any:
        return (1000 + 10 * np.sin(x)).astype(np.float32)[:, None]

    assert compared(price, lambda x: price(x) + 0.5).agreement.value == 1
    assert compared(price, lambda x: price(x) + 9).agreement.value == 0


def test_answers_that_never_vary_are_measured_by_their_size() -> None:
    found = compared(lambda x: np.full((len(x), 3), 5.0), lambda x: np.full((len(x), 3), 5.01))
    assert found.agreement.value == 1
    assert np.isfinite(found.outputs[0].relative_error)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_variant_that_is_not_finite_where_its_parent_is_cannot_be_used(bad: float) -> None:
    with pytest.raises(UnusableOutputs, match="“y” is NaN or infinite"):
        compared(lambda x: x[:, None], lambda x: np.where(x == 77, bad, x)[:, None])


def test_items_on_which_the_parent_itself_is_not_finite_do_not_count() -> None:
    def parent(x: Any) -> Any:
        return np.where(x < 50, np.nan, x)[:, None]

    assert compared(parent, parent).compared == N - 50
    with pytest.raises(UnusableOutputs, match="nothing to compare"):
        compared(lambda x: x[:, None] * np.nan, lambda x: x[:, None])


def test_integers_and_text_agree_only_when_equal() -> None:
    found = compared(
        lambda x: x.astype(np.int64)[:, None], lambda x: (x.astype(np.int64) + (x == 3))[:, None]
    )
    assert found.agreement.value == pytest.approx((N - 1) / N)
    words = compared(lambda x: x.astype(str).astype(object), lambda x: x.astype(str).astype(object))
    assert (words.agreement.value, words.outputs) == (1, ())


def test_an_answer_of_another_size_is_a_disagreement_and_no_failure() -> None:
    signature = Signature.from_json(
        onnx_models.signature([("x", "FP32", [1])], [("boxes", "FP32", ["?", 2])])
    )
    found = accuracy.compare(
        parent=lambda feed: {"boxes": np.ones((3, 2), np.float32)},
        variant=lambda feed: {"boxes": np.ones((3 if feed["x"][0] % 2 else 2, 2), np.float32)},
        items=StoredItems(arrays={"x": ITEMS}, labels=None, batched=False),
        signature=signature,
        basis=Basis.EVALUATION_SET,
        budget_s=60,
        seed=0,
    )
    assert found.agreement.value == pytest.approx(0.5)


def test_when_the_time_is_up_a_random_part_was_compared_and_that_is_said() -> None:
    seen: list[float] = []

    def parent(x: Any) -> Any:
        seen.extend(x.tolist())
        return x[:, None]

    found = compared(parent, lambda x: x[:, None], budget_s=0)
    assert (found.compared, found.available) == (8, N)
    assert seen != sorted(seen)
