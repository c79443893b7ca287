"""What a student learns from: items with their labels, shifted copies of images, and the teacher's answers to all.

The teacher is asked once. Its answers lie in small files that are whole or absent, so that whoever begins again asks
only for what is missing; the name of their folder is made of the digests of teacher and items.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from controlplane.core.errors import Unprocessable
from optimizer.techniques.distill.shapes import Image, image_of
from optimizer.techniques.port import Work
from optimizer.workbench.items import StoredItems, batches, digest, is_classes, read_npz
from optimizer.workbench.session import first_line, open_session, pass_on
from optimizer.workbench.signature import Array

FEWEST_ITEMS = 64
BORROWED_SHARE = 2
"""What is learned from is not compared, so an evaluation set gives one item in so many."""
VALIDATION_SHARE = 0.15
SHIFT_SHARE = 0.1
SHARD = 512
TEACHER_BATCH = 32
LEAST_PROBABILITY = np.float32(1e-9)
UNKNOWN = -1


@dataclass(frozen=True, kw_only=True)
class Material:
    """One row per example: `item` indexes the set, `shift` (rows, columns) moves it. `labels` are class numbers, -1
    where nobody knows. `train` and `validation` index the examples; no item has examples in both."""

    items: StoredItems
    image: Image | None
    item: Array
    shift: Array
    labels: Array
    train: Array
    validation: Array
    source: str
    sha256: str

    @classmethod
    def draw(cls, work: Work, *, copies: int, seed: int) -> Self:
        """All items of a calibration set, or half of the evaluation set. Raises Unprocessable: `calibration_missing`,
        `too_few_items`, or what the set is refused for."""
        if work.calibration is None:
            raise Unprocessable(
                "calibration_missing",
                "It needs items to learn from.",
                "Upload a calibration set, or an evaluation set that it may take half of.",
            )
        items = read_npz(work.calibration, work.signature)
        borrowed = work.calibration_source == "evaluation_set"
        order = np.random.default_rng(seed).permutation(len(items))
        chosen = order[: len(items) // BORROWED_SHARE] if borrowed else order
        if len(chosen) < FEWEST_ITEMS:
            of = f" of the {len(items):,} of the evaluation set" if borrowed else ""
            raise Unprocessable(
                "too_few_items",
                "There are too few items to learn from.",
                f"{len(chosen):,}{of}; at least {FEWEST_ITEMS} are needed. Upload a calibration set: labels are not "
                "needed.",
            )
        image = image_of(_item_shape(items))
        held_out = round(VALIDATION_SHARE * len(chosen))
        copied = np.repeat(chosen[held_out:], copies if image else 0)
        item = np.concatenate([chosen, copied])
        labels = items.labels
        known = labels if labels is not None and is_classes(labels) else np.full(len(items), UNKNOWN)
        return cls(
            items=items,
            image=image,
            item=item,
            shift=_shifts(len(chosen), len(copied), image, seed=seed),
            labels=np.where(known < 0, UNKNOWN, known)[item].astype(np.int64),
            train=np.arange(held_out, len(item)),
            validation=np.arange(held_out),
            source=work.calibration_source,
            sha256=digest(work.calibration),
        )

    @property
    def evaluation_items(self) -> list[int]:
        """Those of the evaluation set, which must not be compared: also those that only chose the best weights."""
        return sorted({int(index) for index in self.item}) if self.source == "evaluation_set" else []

    @property
    def digest(self) -> str:
        """Of the examples as they are, in order; the labels are no part of them. Cost: reads all inputs."""
        (array,) = self.items.arrays.values()
        found = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
        for part in (array, self.item, self.shift):
            found.update(np.ascontiguousarray(part).data)
        return found.hexdigest()

    def inputs(self, examples: Array) -> Array:
        """[n, ...] in the model's type."""
        (array,) = self.items.arrays.values()
        (name,) = self.items.arrays
        chosen = array[self.item[examples]]
        if name in self.items.whole:
            chosen = chosen[:, 0]
        return chosen if self.image is None else shifted(chosen, self.shift[examples], axes=self.image.axes)

    def to_json(self) -> dict[str, Any]:
        train = set(self.item[self.train].tolist())
        labels = dict(zip(self.item.tolist(), self.labels.tolist(), strict=True))
        return {
            "source": self.source,
            "sha256": self.sha256,
            "items": len(labels),
            "labelled": sum(label >= 0 for label in labels.values()),
            "trained_on": len(train),
            "validated_on": len(self.validation),
            "shifted_copies": len(self.train) - len(train),
        }


def _item_shape(items: StoredItems) -> tuple[int, ...]:
    ((name, array),) = items.arrays.items()
    return array.shape[2:] if name in items.whole else array.shape[1:]


def _shifts(plain: int, copied: int, image: Image | None, *, seed: int) -> Array:
    """None for the items themselves; at least one pixel is allowed either way for the copies."""
    made = np.zeros((plain + copied, 2), dtype=np.int64)
    if image is not None and copied:
        rng = np.random.default_rng([seed, 1])
        for axis, size in enumerate((image.height, image.width)):
            reach = max(1, round(SHIFT_SHARE * size))
            made[plain:, axis] = rng.integers(-reach, reach, copied, endpoint=True)
    return made


def shifted(images: Array, shift: Array, *, axes: tuple[int, int]) -> Array:
    """Each image moved by its (rows, columns); what enters at an edge repeats the edge."""
    if not shift.any():
        return images
    moved = np.moveaxis(images, axes, (1, 2))
    count, height, width = moved.shape[:3]
    rows = np.clip(np.arange(height) - shift[:, :1], 0, height - 1)
    columns = np.clip(np.arange(width) - shift[:, 1:], 0, width - 1)
    picked = moved[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return np.moveaxis(picked, (1, 2), axes)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The teacher's, as logits [examples, classes]. `form` is how the model itself answers."""

    logits: Array
    form: str
    key: str
    asked: int
    found: int


def answers(work: Work, material: Material, *, folder: Path) -> Answers:
    """Asks the teacher what is not yet in the folder. Raises Unprocessable: `teacher_fails`, `teacher_not_finite`,
    `not_a_classifier`. Cost: one run of the teacher per example, on all cores."""
    parts = json.dumps([digest(work.input), material.digest])
    key = hashlib.sha256(parts.encode()).hexdigest()[:16]
    raw, found = _asked(work, material, folder=folder / f"answers-{key}")
    if raw.ndim != 2 or raw.shape[1] < 2:
        raise _no_classifier(f"It answers {list(raw.shape[1:])} per item.")
    if unusable := int((~np.isfinite(raw)).any(axis=1).sum()):
        raise Unprocessable(
            "teacher_not_finite",
            "The teacher answers NaN or infinity.",
            f"It does so for {unusable:,} of {len(raw):,} items.",
        )
    form = _form(raw)
    logits = np.log(np.maximum(raw, LEAST_PROBABILITY)) if form == "probabilities" else raw
    return Answers(logits=logits, form=form, key=key, asked=len(raw) - found, found=found)


def _asked(work: Work, material: Material, *, folder: Path) -> tuple[Array, int]:
    """The teacher's answer to every example, and how many of them were in the folder."""
    folder.mkdir(exist_ok=True)
    session = open_session(work.input, threads=len(os.sched_getaffinity(0)))
    (output,), (name,) = work.signature.outputs, material.items.arrays
    size = TEACHER_BATCH if work.signature.batched else 1
    total, found, parts = len(material.item), 0, []
    for number, rows in enumerate(batches(total, SHARD)):
        path = folder / f"{number:06}.npy"
        part = _shard(path, count=len(rows))
        if part is None:
            feeds = (
                material.inputs(np.array(rows[chunk.start : chunk.stop]))
                for chunk in batches(len(rows), size)
            )
            part = _joined([_answer(session, output.name, name, feed) for feed in feeds])
            part = part.astype(np.float32)
            _write(path, part)
        else:
            found += len(rows)
        parts.append(part)
        work.journal.progress(rows.stop, total)
    return _joined(parts), found


def _answer(session: Any, output: str, name: str, items: Array) -> Array:
    """Raises Unprocessable: `teacher_fails`, or `not_a_classifier` where an item has no row of its own."""
    rows = len(items)
    try:
        answer: Array = session.run([output], {name: items})[0]
    except Exception as error:  # ONNX Runtime's exceptions share no base class but Exception
        pass_on(error)
        raise Unprocessable(
            "teacher_fails",
            "The teacher cannot answer the items.",
            f"It was asked for {rows:,} at once: {first_line(error)}",
        ) from error
    if answer.shape[:1] != (rows,):
        raise _no_classifier(f"It answers {list(answer.shape)} to {rows:,} items.")
    return answer


def _joined(parts: list[Array]) -> Array:
    shapes = sorted({part.shape[1:] for part in parts})
    if len(shapes) > 1:
        raise _no_classifier(f"It answers {list(shapes[0])} per item, and {list(shapes[-1])} for others.")
    return np.concatenate(parts)


def _no_classifier(detail: str) -> Unprocessable:
    return Unprocessable("not_a_classifier", "Only classifiers are distilled.", detail)


def _shard(path: Path, *, count: int) -> Array | None:
    """What was written before; None where there is nothing, or nothing whole."""
    try:
        part: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return part if part.ndim == 2 and len(part) == count and part.dtype == np.float32 else None


def _write(path: Path, part: Array) -> None:
    whole = path.with_suffix(".part")
    with whole.open("wb") as file:
        np.save(file, part)
    whole.replace(path)


def _form(raw: Array) -> str:
    """Whether rows are logits, probabilities or their logarithms: the student answers in the same form."""
    if raw.min() >= 0 and np.abs(raw.sum(axis=-1) - 1).max() < 1e-2:
        return "probabilities"
    if raw.max() <= 0 and np.abs(np.exp(raw).sum(axis=-1) - 1).max() < 1e-2:
        return "log-probabilities"
    return "logits"
