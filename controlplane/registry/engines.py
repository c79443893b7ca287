"""Engines: compiled variants that run on some GPUs only, and whether a GPU is one of them.

What an engine is bound to stands in the provenance of the step that built it; its bytes are never asked, because
that takes the vendor's runtime and a GPU. Whoever places an engine asks `why_not` first: a scheduler, a pre-flight,
a ledger of what is to be built again. Refused: judging by families of GPUs; an engine for 8.0 is not one for 8.6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

AMPERE = "8.0"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Where an engine shall run: a compute capability such as “8.6”, and the version of what loads it there, None where
    nobody knows."""

    capability: str
    version: str | None = None


class Engine(BaseModel):
    """`backend` is the module that built it and loads it; `label` and `version` are its own. `profiles`: by input, its
    least (`min`), tuned (`opt`) and most (`max`) shape. `timing_cache` is "hit" where the build began with what earlier
    ones timed on the same kind of GPU, "fresh" where it timed all anew, "none" where nothing is timed. Read strictly,
    because a sandboxed child wrote it.
    """

    model_config = ConfigDict(frozen=True)

    backend: str = "tensorrt_rtx"
    label: str
    version: str
    capabilities: tuple[str, ...] = Field(min_length=1)
    flags: tuple[str, ...]
    hardware_compatibility: Literal["none", "same_compute_capability", "ampere_plus"] = "none"
    workspace_mib: int
    profiles: tuple[dict[str, dict[str, tuple[int, ...]]], ...]
    layers: int
    size_bytes: int
    build_s: float
    timing_cache: Literal["hit", "fresh", "none"] = "none"
    source_sha256: str
    log_tail: tuple[str, ...]
    calibration_sha256: str | None = None

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> Self | None:
        """From the provenance of a variant; None where its last step built no engine, or says nothing that could be
        one. What it was calibrated with, an earlier step says."""
        steps = provenance.get("steps") or [{}]
        try:
            used = [step["calibration"]["sha256"] for step in steps if step.get("calibration")]
            return cls.model_validate(
                steps[-1]["engine"] | {"calibration_sha256": used[-1] if used else None}
            )
        except (KeyError, TypeError, ValidationError):
            return None

    @property
    def built_ahead(self) -> bool:
        """Without a GPU, for as many kinds as one likes."""
        return self.backend == "tensorrt_rtx"

    @property
    def package(self) -> str:
        """The distribution whose `version` loads it."""
        return "tensorrt-rtx-cu12" if self.built_ahead else self.backend

    def fits(self, capability: str) -> bool:
        """Whether a GPU of that compute capability loads it."""
        if self.hardware_compatibility == "ampere_plus":
            return bool(capability) and float(capability) >= float(AMPERE)
        return capability in self.capabilities

    def loaded_by(self, version: str) -> bool:
        """Whether that version of what built it loads it: the same one, or with VERSION_COMPATIBLE a later one."""
        if "VERSION_COMPATIBLE" in self.flags:
            return _numbers(version) >= _numbers(self.version)
        return version == self.version

    @property
    def batches(self) -> tuple[int, int]:
        """The fewest and most items of a request; 1 and 1 where its sizes are all fixed."""
        shapes = [shape for profile in self.profiles for shape in profile.values()]
        least = max((shape["min"][0] for shape in shapes), default=1)
        return least, min((shape["max"][0] for shape in shapes), default=1)

    def sizes(self) -> list[dict[str, str]]:
        """Each open input with its shapes as people write them."""
        return [
            {"input": name, **{which: " × ".join(map(str, shape)) for which, shape in shapes.items()}}
            for profile in self.profiles
            for name, shapes in profile.items()
        ]


def why_not(engine: Engine, gpu: Gpu) -> str:
    """Why this GPU cannot load the engine, as a sentence; empty where nothing speaks against it."""
    if not engine.fits(gpu.capability):
        later = " and later" if engine.hardware_compatibility == "ampere_plus" else ""
        built = f"{_listed(engine.capabilities)}{later}"
        return (
            f"It was built for compute capability {built}; this GPU has {gpu.capability or 'an unknown one'}."
        )
    if gpu.version is not None and not engine.loaded_by(gpu.version):
        return f"It was built by {engine.label} {engine.version}; this GPU's worker has {gpu.version}."
    return ""


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
