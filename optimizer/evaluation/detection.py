"""Mean average precision of boxes, as COCO's evaluation computes it: `pycocotools.cocoeval`, `bbox`, all areas.

Per class and overlap (0.50 to 0.95 in steps of 0.05) detections are taken by falling score; one is right if the box of
its class that it overlaps most, of those that no better one took in its image, overlaps as much as is asked. Average
precision is the mean, over 101 recalls from 0 to 1, of the best precision at that recall or beyond; mAP is its mean
over overlaps and over the classes there are. Lin et al. (2014), "Microsoft COCO", and its evaluation page.

Written again because the interval needs it: a resample of images is a weight for each, so that matching, which is what
takes time, is done once. Left out: crowds, areas, masks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.domain.statistics import Score, Weights
from optimizer.evaluation.metrics import Answer, Scorer
from optimizer.workbench.signature import Array

type Truth = tuple[int, ...]
type Detections = tuple[tuple[int, float, tuple[bool, ...]], ...]
"""Class, score, and whether it is right at each overlap."""

OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
"""Detections of a class that count in one image."""
SURE = 0.5
"""The score from which a box of the parent's stands for a label."""
PADDING = -1


def found(answer: Answer) -> tuple[Array, Array, Array]:
    """Boxes as two corners, scores and classes, from one to three outputs; rows without a score are padding."""
    first, *others = answer
    rows = np.column_stack([first.reshape(-1, first.shape[-1]), *(other.reshape(-1) for other in others)])
    boxes, scores, classes = rows[:, :4], rows[:, 4], rows[:, 5]
    kept = scores > 0
    return boxes[kept].astype(np.float64), scores[kept].astype(np.float64), np.rint(classes[kept]).astype(int)


def overlaps(first: Array, second: Array) -> NDArray[np.float64]:
    """Area of the intersection over that of the union, of each with each; 0 for boxes without an area."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    share: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return share


def sure(answer: Answer) -> Array:
    """What the parent found, as labels."""
    boxes, scores, classes = found(answer)
    chosen = scores >= SURE
    return np.column_stack([boxes[chosen], classes[chosen]])


def reads(answer: Answer, label: Any) -> tuple[Truth, Detections]:
    """Classes of the boxes there are, and what was found. `label`: rows of two corners and a class."""
    truth = np.asarray(label, dtype=np.float64).reshape(-1, 5)
    truth = truth[truth[:, 4] != PADDING]
    boxes, scores, classes = found(answer)
    detections: list[tuple[int, float, tuple[bool, ...]]] = []
    for kind in np.unique(classes):
        mine = np.flatnonzero(classes == kind)
        mine = mine[np.argsort(-scores[mine], kind="stable")][:MOST]
        right = _right(overlaps(boxes[mine], truth[truth[:, 4] == kind, :4]))
        detections.extend(
            (int(kind), float(scores[index]), tuple(row))
            for index, row in zip(mine, right.tolist(), strict=True)
        )
    return tuple(sorted(truth[:, 4].astype(int).tolist())), tuple(detections)


def _right(shared: NDArray[np.float64]) -> NDArray[np.bool_]:
    """For each detection, best first, and each overlap: whether it takes a box."""
    right = np.zeros((len(shared), len(OVERLAPS)), dtype=bool)
    for column, least in enumerate(OVERLAPS):
        left = shared.copy()
        for row in range(len(left)):
            if left.shape[1] and left[row].max() >= least - 1e-10:
                right[row, column] = True
                left[:, left[row].argmax()] = -1.0
    return right


def over(reads: Sequence[tuple[Truth, Detections]]) -> Score | None:
    """None where there is no box to find."""
    there = np.array([(image, kind) for image, (truth, _) in enumerate(reads) for kind in truth], dtype=int)
    rows = [(image, *row) for image, (_, detections) in enumerate(reads) for row in detections]
    rows.sort(key=lambda row: -row[2])
    if not len(there):
        return None
    classes = np.unique(there[:, 1])
    images = {kind: there[there[:, 1] == kind, 0] for kind in classes}
    ranked = {kind: [row for row in rows if row[1] == kind] for kind in classes}
    by_image = {kind: np.array([row[0] for row in ranked[kind]], dtype=int) for kind in classes}
    right = {kind: np.array([row[3] for row in ranked[kind]], dtype=float) for kind in classes}

    def score(weights: Weights) -> float:
        found = [
            _average_precision(weights[by_image[kind]], right[kind], boxes)
            for kind in classes
            if (boxes := float(weights[images[kind]].sum())) > 0
        ]
        return float(np.mean(found)) if found else 0.0

    return score


def _average_precision(weights: Weights, right: NDArray[np.float64], boxes: float) -> float:
    """Mean over the overlaps. `weights` and `right` go by falling score; `boxes` is what there is to find."""
    if not len(right):
        return 0.0
    hits = np.cumsum(right * weights[:, None], axis=0)
    taken = np.maximum(np.cumsum(weights), np.finfo(float).tiny)[:, None]
    best = np.maximum.accumulate((hits / taken)[::-1], axis=0)[::-1]
    reached = [np.searchsorted(column, RECALLS) for column in (hits / boxes).T]
    padded = np.vstack([best, np.zeros(best.shape[1])])
    return float(np.mean([padded[at, column] for column, at in enumerate(reached)]))


MAP = Scorer(reads=reads, over=over, truth=sure)
