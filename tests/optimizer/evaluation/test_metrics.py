"""Scores by their definitions, intervals that cover the truth, and labels that no output can be scored against."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.errors import Unprocessable
from controlplane.registry import metrics as known
from controlplane.registry.answers import Answers
from optimizer.domain.statistics import Estimate, bootstrap
from optimizer.domain.verdict import Basis, Speed, decide
from optimizer.evaluation import accuracy, metrics
from optimizer.workbench.items import StoredItems, label_summary
from optimizer.workbench.signature import Signature
from tests.optimizer import onnx_models

N = 60


SCORED = {row.key: metrics.scorer_of(row) for row in known.every() if row.scorer}


def test_every_metric_has_a_scorer_but_the_one_with_an_exact_interval():
    assert set(known.METRICS) - set(SCORED) == {known.TOP_1}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_macro_f1_is_the_mean_over_classes_of_precision_against_recall(pairs: list[tuple[int, int]]) -> None:
    each = []
    for label in {value for pair in pairs for value in pair}:
        right = sum(pair == (label, label) for pair in pairs)
        said, there = (sum(pair[side] == label for pair in pairs) for side in (1, 0))
        precision, recall = right / said if said else 0.0, right / there if there else 0.0
        each.append(2 * precision * recall / (precision + recall) if right else 0.0)
    assert metrics.F1.over(pairs)(np.ones(len(pairs))) == pytest.approx(np.mean(each))


@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(0, 3), max_size=6))
def test_edits_are_a_distance(first: list[int], second: list[int]) -> None:
    found = metrics.edits(first, second)
    assert found == metrics.edits(second, first)
    assert (found == 0) == (first == second)
    assert abs(len(first) - len(second)) <= found <= max(len(first), len(second))


@pytest.mark.parametrize(
    ("said", "truth", "errors"),
    [("the cat sat", "the cat sat", 0), ("the bat", "the cat sat", 2), ("", "a b", 2), ("a x b", "a b", 1)],
)
def test_words_are_substituted_left_out_and_put_in(said, truth, errors):
    assert metrics.WORDS.reads([np.array(said, dtype=object)], truth) == (errors, len(truth.split()))


def compared(
    metric: str, labels: Any, parent: Any, variant: Any, *, dtype: str = "FP32", item: tuple[Any, ...] = ()
) -> accuracy.Accuracy:
    shape = onnx_models.signature([("x", "FP32", ["n"])], [("y", dtype, ["n", *item])])
    return accuracy.compare(
        parent=lambda feed: {"y": parent[feed["x"].astype(int)]},
        variant=lambda feed: {"y": variant[feed["x"].astype(int)]},
        items=StoredItems(arrays={"x": np.arange(N, dtype=np.float32)}, labels=labels, batched=True),
        signature=Signature.from_json(shape),
        basis=Basis.EVALUATION_SET,
        budget_s=60,
        seed=1,
        metric=metric,
    )


def test_f1_sees_a_rare_class_that_is_lost_where_accuracy_hardly_does():
    labels = np.array([1] * 3 + [0] * (N - 3))
    sure, blind = np.eye(2, dtype=np.float32)[labels], np.eye(2, dtype=np.float32)[np.zeros(N, int)]
    top, f1 = (compared(metric, labels, sure, blind, item=(2,)) for metric in ("top-1", "f1-macro"))
    assert (top.metric, top.lost, round(top.loss.value, 3)) == ("top-1", 3, 0.05)
    assert (f1.metric, f1.measure, f1.lost, f1.basis) == ("f1-macro", "macro F1", None, Basis.LABELS)
    assert f1.loss.value > 0.5
    assert f1.parent_accuracy is not None
    assert f1.parent_accuracy.value == 1


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_ratings_are_scored_by_the_variance_that_they_explain(dtype: Any) -> None:
    """Whole ratings too, where the model's task says so."""
    random = np.random.default_rng(0)
    truth = random.integers(1, 6, size=N).astype(dtype)
    near = (truth + 0.1 * random.normal(size=N)).astype(np.float32)[:, None]
    far = (truth + 0.5 * random.normal(size=N)).astype(np.float32)[:, None]
    shape = onnx_models.signature([("x", "FP32", ["n"])], [("y", "FP32", ["n", 1])])
    labels = label_summary(truth)
    assert known.chosen("", labels=labels, signature=shape, answers=Answers(task="regression")) == "r2"
    found = compared("r2", truth, near, far, item=(1,))
    spread = np.sum((truth - truth.mean()) ** 2)
    assert found.parent_accuracy is not None
    assert found.parent_accuracy.value == pytest.approx(1 - np.sum((truth - near[:, 0]) ** 2) / spread)
    assert 0 < found.loss.low < found.loss.value < found.loss.high
    assert (found.measure, found.lost, found.least) == ("R²", None, None)


def test_cosine_is_of_each_item_to_its_label():
    random = np.random.default_rng(0)
    labels = random.normal(size=(N, 8)).astype(np.float32)
    off = labels + random.normal(size=(N, 8)).astype(np.float32) * 0.3
    found = compared("cosine", labels, labels * 7, off, item=(8,))
    own = np.sum(labels * off, 1) / np.linalg.norm(labels, axis=1) / np.linalg.norm(off, axis=1)
    assert found.loss.value == pytest.approx(1 - own.mean(), abs=1e-6)
    assert found.least == pytest.approx(own.min(), abs=1e-6)
    assert found.loss.low < found.loss.value < found.loss.high


@pytest.mark.parametrize("kind", ["texts", "tokens"])
def test_word_errors_are_counted_over_the_whole_set(kind):
    if kind == "texts":
        labels, said = np.array(["a b c d"] * N), np.array([["a b c d"]] * N, dtype=object)
        worse, dtype, item = said.copy(), "BYTES", (1,)
        worse[:6] = "a x c"
    else:
        labels = said = np.tile([1, 2, 3, 4, -1], (N, 1))
        worse, dtype, item = said.copy(), "INT64", ("length",)
        worse[:6] = [1, 9, 3, -1, -1]
    found = compared("wer", labels, said, worse, dtype=dtype, item=item)
    assert found.loss.value == pytest.approx(6 * 2 / (4 * N))
    assert found.parent_accuracy is not None
    assert found.parent_accuracy.value == 1


@pytest.mark.parametrize("n", [5, 100, 2000])
def test_a_loss_that_was_never_seen_is_known_no_better_than_the_items_allow(n):
    same = metrics.COSINE.over([(0.0,)] * n)
    found = bootstrap(same, same, n, differing=0, seed=0).loss
    assert found.value == 0
    assert found.high == pytest.approx(2.7 / n, rel=0.4)


def test_the_interval_covers_a_planted_loss_as_often_as_it_says():
    """90 %: of 60 draws, fewer than 45 would come by chance once in a thousand."""
    random, covered = np.random.default_rng(3), 0
    for seed in range(60):
        parent = random.normal(0.9, 0.05, size=(200, 1))
        variant = parent - random.normal(0.02, 0.05, size=(200, 1))
        sides = (metrics.COSINE.over(side.tolist()) for side in (parent, variant))
        found = bootstrap(*sides, 200, differing=200, seed=seed, resamples=200).loss
        covered += found.low <= 0.02 <= found.high
    assert covered >= 45


@settings(deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["cosine", "f1-macro", "r2", "wer"]))
def test_a_variant_that_answers_like_its_parent_loses_nothing(seed: int, key: str) -> None:
    reads = np.random.default_rng(seed).integers(0, 4, size=(12, 2)).astype(np.float64)
    score = SCORED[key].over(reads.tolist())
    found = bootstrap(score, score, 12, differing=0, seed=seed, resamples=20).loss
    assert found.value == 0
    assert found.low <= 0 <= found.high


def test_the_sentence_names_the_metric():
    random = np.random.default_rng(0)
    labels = random.normal(size=(N, 8)).astype(np.float32)
    found = compared("cosine", labels, labels, labels + 0.5, item=(8,))
    fast = Speed(
        batch_size=1,
        parent_ms=2,
        variant_ms=1,
        speedup=Estimate(value=2.0, low=1.9, high=2.1, n=40, confidence=0.95),
        spread=0.01,
    )
    said = decide(speeds=[fast], fidelity=found.evidence()).sentence
    assert "cosine to the labels lost" in said
    assert f"on {N} labelled items" in said


SIGNATURE = onnx_models.signature(
    [("x", "FP32", ["n"])],
    [("y", "FP32", ["n", 3]), ("ids", "INT64", ["n", "length"]), ("rating", "FP32", ["n", 1])],
)


@pytest.mark.parametrize(
    ("asked", "labels", "metric"),
    [
        ("", None, ""),
        ("", {"kind": "classes"}, "top-1"),
        ("f1-macro", {"kind": "classes"}, "f1-macro"),
        ("", {"kind": "vectors", "shape": [3]}, "cosine"),
        ("r2", {"kind": "classes"}, "r2"),
        ("", {"kind": "numbers"}, "r2"),
        ("", {"kind": "tokens"}, "wer"),
    ],
)
def test_labels_choose_the_metric_unless_it_is_asked_for(asked, labels, metric):
    assert known.chosen(asked, labels=labels, signature=SIGNATURE) == metric


@pytest.mark.parametrize(
    ("asked", "labels", "said"),
    [
        ("top-1", None, "needs labels"),
        ("wer", {"kind": "classes"}, "takes texts or rows of token numbers; the labels are class numbers"),
        ("", {"kind": "vectors", "shape": [4]}, "expects an output with numbers of the labels' shape"),
        ("", {"kind": "texts"}, "expects an output with one text per item"),
        ("top-1", {"kind": "vectors", "shape": [3]}, "takes class numbers"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_the_reason(asked, labels, said):
    with pytest.raises(Unprocessable) as error:
        known.chosen(asked, labels=labels, signature=SIGNATURE)
    assert error.value.code == "metric_unfit"
    assert said in error.value.detail


HIDDEN = onnx_models.signature(
    [("at", "FP32", ["n"]), ("attention_mask", "INT64", ["n", "s"])], [("h", "FP32", ["n", "s", 16])]
)


def embedded(*, labels: Any = None, metric: str = "", answers: Answers | None = None) -> accuracy.Accuracy:
    """Rows for each of 12 positions, of which the mask leaves out more than half. The variant is near its parent where
    the mask counts, and says anything elsewhere."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(N, 12, 16)).astype(np.float32)
    mask = (np.arange(12) < random.integers(2, 6, size=N)[:, None]).astype(np.int64)
    near = rows + 0.05 * random.normal(size=rows.shape)
    padded = np.where(mask[:, :, None] == 1, near, random.normal(size=rows.shape)).astype(np.float32)
    return accuracy.compare(
        parent=lambda feed: {"h": rows[feed["at"].astype(int)]},
        variant=lambda feed: {"h": padded[feed["at"].astype(int)]},
        items=StoredItems(
            arrays={"at": np.arange(N, dtype=np.float32), "attention_mask": mask},
            labels=(rows * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
            if labels == "pooled"
            else None,
            batched=True,
        ),
        signature=Signature.from_json(HIDDEN),
        basis=Basis.EVALUATION_SET,
        budget_s=60,
        seed=1,
        metric=metric,
        answers=answers,
    )


def test_without_labels_an_embedding_is_judged_by_its_cosine_and_padding_does_not_count() -> None:
    found = embedded()
    assert (found.task, found.output, found.pooling, found.metric) == ("embedding", "h", "mean", "cosine")
    assert found.agreement.value > 0.995
    assert found.loss.value == pytest.approx(1 - found.agreement.value)
    assert found.how.startswith("cosine to the parent from “h”, the mean over its positions, without the pos")
    assert found.evidence().in_points
    unpooled = embedded(answers=Answers(pooling="none"))
    assert unpooled.agreement.value > 0.995
    assert unpooled.agreement.value != found.agreement.value


def test_labels_of_the_pooled_shape_are_scored_on_the_pooled_output() -> None:
    found = embedded(labels="pooled", metric="cosine", answers=Answers(pooling="none"))
    assert (found.basis, found.pooling) == (Basis.LABELS, "mean")
    assert found.parent_accuracy is not None
    assert found.parent_accuracy.value == pytest.approx(1)
    assert 0 < found.loss.value < 0.005


def test_scores_that_are_no_classes_are_compared_as_values_where_the_task_says_so() -> None:
    """Three ratings that are close to one another: the largest changes, hardly any value does."""
    random = np.random.default_rng(2)
    item = (3 + random.normal(size=(N, 1)) + 0.001 * random.normal(size=(N, 3))).astype(np.float32)
    moved = item + 0.01 * random.normal(size=item.shape).astype(np.float32)
    shape = onnx_models.signature([("x", "FP32", ["n"])], [("logits", "FP32", ["n", 3])])

    def agreement(task: str) -> float:
        found = accuracy.compare(
            parent=lambda feed: {"logits": item[feed["x"].astype(int)]},
            variant=lambda feed: {"logits": moved[feed["x"].astype(int)]},
            items=StoredItems(arrays={"x": np.arange(N, dtype=np.float32)}, labels=None, batched=True),
            signature=Signature.from_json(shape),
            basis=Basis.EVALUATION_SET,
            budget_s=60,
            seed=1,
            answers=Answers(task=task),
        )
        assert found.task == (task or "classification")
        return found.agreement.value

    assert agreement("") < 0.7
    assert agreement("regression") == 1


def test_without_labels_a_transcription_is_judged_by_its_words() -> None:
    said = np.array([["a b c d"]] * N, dtype=object)
    worse = said.copy()
    worse[:6] = "a x c d"
    found = compared("", None, said, worse, dtype="BYTES", item=(1,))
    assert found.task == "transcription"
    assert found.loss.value == pytest.approx(6 / (4 * N))
    fidelity = found.evidence()
    sentence = decide(speeds=[], fidelity=fidelity).sentence
    assert "word accuracy against the parent 0.9750 on 60 evaluation items (at least 0.9" in sentence
