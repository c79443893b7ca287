"""S5: what the optimizer makes, against the nearest peer's default result and against PyTorch eager.

Peer and product start from the same file and the same items. The product's own report measures both in turns: the
peer's result as the parent, ours as the variant, scored by the same answers. Ours is not repaired, as theirs is not.

Refused as peers: Optimum, which calls the same quantizers of ONNX Runtime as Olive, Triton Model Navigator, which
quantizes nothing for a CPU, and Intel Neural Compressor, whose newest release has no ONNX backend left.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from optimizer.evaluation.machine import describe
from tests.benchmarks.children import Model, NotMade, apply, report
from tests.benchmarks.digits import digits
from tests.benchmarks.optimizer_speedup_models import Subject, cnn, magika, minilm
from tests.benchmarks.optimizer_speedup_peers import DEFAULTS, made_by_peer
from tests.benchmarks.optimizer_speedup_rows import Speed, against_peer, at_size, score
from tests.benchmarks.peers import PeerMissing
from tests.benchmarks.result import Row

UNREPAIRED = {"repair_rounds": 0}
PARAMS: Mapping[str, Mapping[str, Any]] = dict.fromkeys(
    ("int8-dynamic", "int8-static", "openvino"), UNREPAIRED
)
ONLY_IN_FULL = ("onnx-graph", "fp16")
"""They hardly change the speed of a CPU."""
SIZES = (1, 8)
EXPORT = "onnx-export"
EAGER: Mapping[tuple[str, str], Mapping[int, float]] = {
    ("MiniLM", EXPORT): {1: 1.35, 8: 1.0},
    ("MiniLM", "int8-dynamic"): {1: 3.0, 8: 2.4},
    ("MiniLM", "openvino"): {1: 3.7, 8: 3.4},
    ("digits CNN", EXPORT): {1: 1.55},
    ("digits CNN", "int8-static"): {1: 5.0},
}
"""Speed-ups over PyTorch eager by batch size, to match on a processor with these instructions."""
INSTRUCTIONS = "avx512_vnni"
COSINES: Mapping[tuple[str, str], float] = {("MiniLM", "int8-dynamic"): 0.993, ("MiniLM", "openvino"): 0.997}


def run(*, full: bool) -> list[Row]:
    with TemporaryDirectory(prefix="slipway-bench-") as name, digits() as made:
        bench = Bench(folder=Path(name), budget_s=30.0 if full else 6.0)
        keys = [key for key in DEFAULTS if full or key not in ONLY_IN_FULL]
        subjects = (minilm(bench.folder), cnn(made), magika(bench.folder))
        return [row for subject in subjects for row in bench.rows(subject, keys)]


@dataclass(frozen=True, kw_only=True)
class Bench:
    folder: Path
    budget_s: float

    def rows(self, subject: Subject, keys: list[str]) -> Iterator[Row]:
        made = {EXPORT: subject.exported}
        for key in keys:
            print(f"  {key} of {subject.name}", file=sys.stderr, flush=True)
            try:
                ours = self._apply(key, subject)
                yield from self._beside_peer(key, subject, ours)
            except NotMade as error:
                yield Row(metric=f"{key} of {subject.name}: refused, {error}", value=None, unit="ms")
            else:
                made[key] = ours
        if subject.eager is not None:
            yield from self._beside_eager(subject, subject.eager, made)

    def _apply(self, key: str, subject: Subject) -> Model:
        params, items = PARAMS.get(key, {}), subject.calibration
        made, _ = apply(key, params, subject.exported, folder=self.folder, calibration=items)
        return made

    def _report(self, parent: Model, variant: Model, subject: Subject) -> dict[str, Any]:
        return report(
            parent,
            variant,
            signature=subject.scored,
            evaluation=subject.evaluation,
            metric=subject.metric,
            budget_s=self.budget_s,
        )

    def _beside_peer(self, key: str, subject: Subject, ours: Model) -> Iterator[Row]:
        what, peer = f"{key} of {subject.name}", f"{DEFAULTS[key].peer}'s {DEFAULTS[key].name}"
        try:
            found = self._report(made_by_peer(key, subject, folder=self.folder), ours, subject)
        except (PeerMissing, NotMade) as error:
            found = self._report(subject.exported, ours, subject)
            alone = f"{what} against the original, for {peer} cannot be run ({error})"
            yield from (speed.row(alone) for speed in Speed.all_of(found).values() if speed.size in SIZES)
        else:
            for speed in Speed.all_of(found).values():
                if speed.size in SIZES:
                    yield against_peer(f"{what} against {peer}", speed, found["accuracy"])
        if mark := COSINES.get((subject.name, key)):
            yield score(f"cosine of {what} to the original", found["accuracy"], mark=mark)

    def _beside_eager(self, subject: Subject, eager: Model, made: Mapping[str, Model]) -> Iterator[Row]:
        known = INSTRUCTIONS in describe().cpu_flags
        for (name, key), marks in EAGER.items():
            if name != subject.name or key not in made:
                continue
            speeds = self._over_eager(subject, eager, subject.exported if key == EXPORT else made[key])
            for size in SIZES:
                mark = marks.get(size) if known else None
                yield at_size(f"{key} of {name} against PyTorch eager", speeds, size, mark=mark)

    def _over_eager(self, subject: Subject, eager: Model, ours: Model) -> dict[int, Speed]:
        found = report(
            eager,
            ours,
            signature=eager.signature,
            evaluation=subject.evaluation,
            budget_s=self.budget_s,
        )
        return Speed.all_of(found)
