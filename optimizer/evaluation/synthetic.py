"""Random items that respect the signature, for models that came without an evaluation set.

They tell whether two files compute the same thing. They do not tell how good either is, and every report
that uses them says so. Each item has its own generator, so the same seed gives the same items in any order
and nothing has to be kept in memory.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controlplane.core.errors import Unprocessable
from optimizer.evaluation.ranges import Range
from optimizer.workbench.session import first_line, pass_on
from optimizer.workbench.signature import Array, Feed, Signature, TensorSpec

# Tried in turn for dimensions the model leaves open; images want large ones, sequences small ones.
OPEN_SIZES = (64, 128, 224, 32, 16, 8, 1)


@dataclass(frozen=True, kw_only=True)
class RandomItems:
    """`count` items; equal symbolic dimensions have equal sizes."""

    signature: Signature
    sizes: Mapping[str, int]
    ranges: Mapping[str, Range]
    seed: int
    count: int
    labels: Array | None = None

    def __len__(self) -> int:
        return self.count

    def feed(self, indices: Sequence[int]) -> Feed:
        items = [self._item(index) for index in indices]
        if not self.signature.batched:
            (item,) = items
            return item
        return {name: np.stack([item[name] for item in items]) for name in items[0]}

    def _item(self, index: int) -> Feed:
        rng = np.random.default_rng([self.seed, index])
        return {spec.name: self._draw(rng, spec) for spec in self.signature.inputs}

    def _draw(self, rng: np.random.Generator, spec: TensorSpec) -> Array:
        open_shape = spec.shape[1:] if self.signature.batched else spec.shape
        shape = tuple(size if isinstance(size, int) else self.sizes[size] for size in open_shape)
        dtype = spec.numpy_dtype
        if dtype.kind == "f":
            # Items of one strength all look alike to a net that averages, and then any error looks large.
            return np.asarray(rng.uniform(0.5, 1.5) * rng.standard_normal(shape)).astype(dtype)
        if dtype.kind == "b":
            return rng.integers(0, 2, shape).astype(dtype)
        limits = self.ranges.get(spec.name, _default_range(dtype.itemsize, signed=dtype.kind == "i"))
        return rng.integers(limits.low, limits.high, shape, endpoint=True).astype(dtype)


def _default_range(itemsize: int, *, signed: bool) -> Range:
    """Bytes are pixels more often than ids. Anything wider may be an id or a mask: no embedding refuses 0 or 1."""
    if itemsize > 1:
        return Range(low=0, high=1)
    return Range(low=-128, high=127) if signed else Range(low=0, high=255)


def random_items(
    signature: Signature,
    *,
    ranges: Mapping[str, Range],
    runs: Callable[[Feed], object],
    seed: int,
    count: int,
) -> RandomItems:
    """Items that the model accepts: open dimensions are tried in turn with `runs`, which raises on refusal.

    Raises Unprocessable("cannot_make_inputs") when none is accepted, or an input is text.
    """
    if any(spec.dtype == "BYTES" for spec in signature.inputs):
        raise _cannot_make("It takes text, and random text means nothing.")
    symbols = {
        size
        for spec in signature.inputs
        for size in (spec.shape[1:] if signature.batched else spec.shape)
        if isinstance(size, str)
    }
    refusal = ""
    for size in OPEN_SIZES if symbols else OPEN_SIZES[:1]:
        items = RandomItems(
            signature=signature, sizes=dict.fromkeys(symbols, size), ranges=ranges, seed=seed, count=count
        )
        try:
            runs(items.feed([0]))
        except Exception as error:  # noqa: BLE001  the runtime's exceptions share no base class
            pass_on(error)
            refusal = first_line(error)
        else:
            return items
    raise _cannot_make(f"The model refused every try; the last time with: {refusal}")


def _cannot_make(why: str) -> Unprocessable:
    return Unprocessable(
        "cannot_make_inputs",
        "No inputs can be made up for this model.",
        f"{why} Give an evaluation set (npz).",
    )
