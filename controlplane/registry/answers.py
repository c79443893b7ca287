"""What a model's answers are: the task by which two of them are compared, which output counts, and whether its
positions are pooled.

What nobody stated is read off the signature. Positions that a mask among the inputs leaves out are padding and never
count. Refused: guessing a task from answers alone, which takes scores for classes. Imports no Django: the sandbox reads
it too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

type Port = Mapping[str, Any]
type Signature = Mapping[str, Any]
CLASSIFICATION, EMBEDDING, REGRESSION, DETECTION, TRANSCRIPTION, OTHER = (
    "classification",
    "embedding",
    "regression",
    "detection",
    "transcription",
    "other",
)
TASKS: Mapping[str, str] = {
    CLASSIFICATION: "Classification: the same class",
    EMBEDDING: "Embedding: the cosine to the parent's vector",
    REGRESSION: "Regression: values near the parent's",
    DETECTION: "Detection: the same boxes, by mAP against those that the parent is sure of",
    TRANSCRIPTION: "Transcription: the same words",
    OTHER: "Other: the class where answers are probabilities, else values near the parent's",
}
"""How each compares answers where there are no labels."""
NO_POOLING, MEAN = "none", "mean"
POOLINGS: Mapping[str, str] = {
    NO_POOLING: "None: every position counts",
    MEAN: "Mean over the positions",
}
WHOLE = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
FLOAT = frozenset({"FP16", "FP32", "FP64"})
MAX_OUTPUT_NAME = 200


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Keys of TASKS and POOLINGS and the name of an output; "" for what the signature shall tell."""

    task: str = ""
    output: str = ""
    pooling: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(**value)

    def to_json(self) -> dict[str, str]:
        return asdict(self)

    def settled(self, signature: Signature) -> Self:
        """With what the signature tells. `output` stays "" where all of them count, or the answers decide; one that
        this signature does not have was stated for another version, and is passed over."""
        ports = {port["name"]: port for port in signature["outputs"]}
        stated = ports.get(self.output)
        task = self.task or _task([stated] if stated else list(ports.values()), signature)
        counts = stated or (_embedding(list(ports.values()), signature) if task == EMBEDDING else None)
        pooled = task == EMBEDDING and counts is not None and bool(mask_of(counts, signature))
        return replace(
            self,
            task=task,
            output=counts["name"] if counts else "",
            pooling=self.pooling or (MEAN if pooled else NO_POOLING),
        )

    def in_words(self, signature: Signature) -> list[str]:
        """One line each for the task, the output and the positions."""
        found = self.settled(signature)
        read = "as its signature suggests"
        ports = [port for port in signature["outputs"] if found.output in ("", port["name"])]
        mask = next(filter(None, (mask_of(port, signature) for port in ports)), None)
        pooled = [POOLINGS[MEAN]] if found.pooling == MEAN else []
        padded = [f"positions that “{mask}” leaves out do not count"] if mask else []
        return [
            TASKS[found.task] + ("" if self.task else f" ({read})"),
            f"Compared: “{found.output}”" if found.output else "Compared: every output",
            *(["; ".join([*pooled, *padded])] if pooled or padded else []),
        ]


def item_shape(port: Port, signature: Signature) -> list[int | str]:
    """Of one item: without the batch axis, if there is one."""
    return list(port["shape"][1:] if signature["batch_axis"] == 0 else port["shape"])


def mask_of(port: Port, signature: Signature) -> str | None:
    """The input that says which positions of this output are no padding: it has the output's axes but for the last."""
    wanted = item_shape(port, signature)[:-1]
    masks = sorted(
        (each for each in signature["inputs"] if "mask" in each["name"].lower()),
        key=lambda each: each["name"] != "attention_mask",
    )
    for mask in masks:
        if wanted and item_shape(mask, signature) == wanted:
            return str(mask["name"])
    if len(masks) == 1 and wanted and _alike(item_shape(masks[0], signature), wanted):
        return str(masks[0]["name"])
    return None


def pooled_shape(port: Port, signature: Signature, *, pooling: str) -> list[int | str]:
    """Of one item, as it is compared."""
    shape = item_shape(port, signature)
    return shape[-1:] if pooling == MEAN and len(shape) > 1 else shape


def boxes_among(ports: Sequence[Port]) -> tuple[str, ...]:
    """The outputs, by their shapes for one item, that say boxes, scores and classes: all in rows of six, or rows of
    five and classes, or rows of four, scores and classes. None where they do not. A batch of one may be written into
    them."""
    rows = {
        port["shape"][-1]: port["name"]
        for port in reversed(ports)
        if port["dtype"] in FLOAT and _has_axes(port, 2) and port["shape"][-1] in (4, 5, 6)
    }
    one_each = [port["name"] for port in ports if _has_axes(port, 1)]
    scores = [name for name in one_each if "score" in name.lower() or "conf" in name.lower()][:1]
    classes = [name for name in one_each if "label" in name.lower() or "class" in name.lower()][:1]
    if 6 in rows:
        return (rows[6],)
    if 5 in rows and classes:
        return (rows[5], *classes)
    return (rows[4], *scores, *classes) if 4 in rows and scores and classes else ()


def _has_axes(port: Port, count: int) -> bool:
    return len(port["shape"]) == count or (len(port["shape"]) == count + 1 and port["shape"][0] == 1)


def _alike(first: list[int | str], second: list[int | str]) -> bool:
    """Symbols may go by different names where exporters made them up."""
    return len(first) == len(second) and all(
        a == b or (isinstance(a, str) and isinstance(b, str)) for a, b in zip(first, second, strict=True)
    )


def _task(ports: list[Port], signature: Signature) -> str:
    """By types, shapes and the names that exporters and libraries give; OTHER where they tell nothing."""
    floats = [port for port in ports if port["dtype"] in FLOAT]
    shaped = [{**port, "shape": item_shape(port, signature)} for port in ports]
    if any(word in name.lower() for name in boxes_among(shaped) for word in ("box", "det")):
        return DETECTION
    if not floats and any(_says_words(port, signature) for port in ports):
        return TRANSCRIPTION
    for port in ports:
        name, vector = port["name"].lower(), _axes(port, signature) <= 1
        one = all(size == 1 for size in item_shape(port, signature))
        if vector and one and any(word in name for word in ("logit", "regress", "variable")):
            return REGRESSION  # with one logit transformers regress, and scikit-learn calls it “variable”
        if vector and any(word in name for word in ("logit", "prob", "softmax", "label", "class")):
            return CLASSIFICATION
    return EMBEDDING if _embedding(ports, signature) else OTHER


def _says_words(port: Port, signature: Signature) -> bool:
    shape = item_shape(port, signature)
    return (port["dtype"] == "BYTES" and shape in ([], [1])) or (
        port["dtype"] in WHOLE and len(shape) == 1 and isinstance(shape[0], str)
    )


def _embedding(ports: list[Port], signature: Signature) -> Port | None:
    """The output that is one: by its name, or because it has a row for every position that a mask tells of."""
    floats = [port for port in ports if port["dtype"] in FLOAT]
    named = (port for port in floats if "embed" in port["name"].lower())
    rows = (
        port
        for port in floats
        if mask_of(port, signature) is not None and "logit" not in port["name"].lower()
    )
    pooled = (port for port in floats if port["name"] == "pooler_output")
    return next(named, None) or next(rows, None) or next(pooled, None)


def _axes(port: Port, signature: Signature) -> int:
    return len([size for size in item_shape(port, signature) if size != 1])
