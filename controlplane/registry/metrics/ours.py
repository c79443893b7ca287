"""The metrics that come with the product."""

from collections.abc import Callable, Sequence

from controlplane.registry.answers import (
    CLASSIFICATION,
    DETECTION,
    EMBEDDING,
    FLOAT,
    REGRESSION,
    TRANSCRIPTION,
    WHOLE,
    Port,
    boxes_among,
)
from controlplane.registry.metrics.port import (
    CLASSES,
    NUMBERS,
    TEXTS,
    TOKENS,
    VECTORS,
    Labels,
    Metric,
    kind_of,
)


def _first(fits: Callable[[Port, Labels | None], bool]) -> Callable[..., tuple[str, ...]]:
    def finds(ports: Sequence[Port], labels: Labels | None) -> tuple[str, ...]:
        return tuple(port["name"] for port in ports if fits(port, labels))[:1]

    return finds


def _classifies(port: Port, labels: Labels | None) -> bool:
    return port["dtype"] in FLOAT | WHOLE and len([size for size in port["shape"] if size != 1]) <= 1


def _says_a_number(port: Port, labels: Labels | None) -> bool:
    return port["dtype"] in FLOAT and all(size == 1 for size in port["shape"])


def _points_the_same_way(port: Port, labels: Labels | None) -> bool:
    item, shape = port["shape"], labels["shape"] if labels else port["shape"]
    return (
        port["dtype"] in FLOAT
        and len(item) == len(shape)
        and all(isinstance(size, str) or size == want for size, want in zip(item, shape, strict=True))
    )


def _says_words(port: Port, labels: Labels | None) -> bool:
    text = port["dtype"] == "BYTES" and port["shape"] in ([], [1])
    tokens = port["dtype"] in WHOLE and len(port["shape"]) == 1
    if labels is None:
        return text or tokens
    return text if kind_of(labels) == TEXTS else tokens


def _finds_boxes(ports: Sequence[Port], labels: Labels | None) -> tuple[str, ...]:
    """Labels are rows of two corners and a class for every item."""
    fits = labels is None or (len(labels["shape"]) == 2 and labels["shape"][1] == 5)
    return boxes_among(ports) if fits else ()


TOP_1 = Metric(
    key="top-1",
    label="Top-1 accuracy",
    measure="accuracy",
    wants=(CLASSES,),
    expects="one row of scores, or one class number, per item",
    finds=_first(_classifies),
    scorer="",
    task=CLASSIFICATION,
)
F1 = Metric(
    key="f1-macro",
    label="F1, mean over classes",
    measure="macro F1",
    wants=(CLASSES,),
    expects="one row of scores, or one class number, per item",
    finds=_first(_classifies),
    scorer="optimizer.evaluation.metrics:F1",
    task=CLASSIFICATION,
)
R2 = Metric(
    key="r2",
    label="R², variance explained",
    measure="R²",
    wants=(NUMBERS, CLASSES),
    expects="one number per item",
    finds=_first(_says_a_number),
    scorer="optimizer.evaluation.metrics:R2",
    task=REGRESSION,
)
COSINE = Metric(
    key="cosine",
    label="Cosine to the labels, mean",
    measure="cosine to the labels",
    wants=(VECTORS,),
    expects="numbers of the labels' shape, as they are or as the mean over positions",
    finds=_first(_points_the_same_way),
    scorer="optimizer.evaluation.metrics:COSINE",
    task=EMBEDDING,
    agreement="cosine to the parent",
)
WER = Metric(
    key="wer",
    label="Words right (1 − word error rate)",
    measure="word accuracy",
    wants=(TEXTS, TOKENS),
    expects="one text per item where the labels are texts, else a row of whole numbers (padded with −1)",
    finds=_first(_says_words),
    scorer="optimizer.evaluation.metrics:WORDS",
    task=TRANSCRIPTION,
    agreement="word accuracy against the parent",
)
MAP = Metric(
    key="map",
    label="mAP of boxes",
    measure="mAP",
    wants=(VECTORS,),
    expects="boxes as two corners, scores and classes, in one to three outputs; labels are [boxes, 5] for every item, "
    "two corners and a class (−1 pads)",
    finds=_finds_boxes,
    scorer="optimizer.evaluation.detection:MAP",
    task=DETECTION,
    agreement="mAP against the parent",
)
