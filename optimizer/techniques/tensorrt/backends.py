"""The two products that build engines, and what differs between them. Their Python API is almost one.

TensorRT for RTX builds ahead of time for a list of compute capabilities, without a GPU. TensorRT builds for the GPU
that it finds, and its package is not on the public index; a toolchain that has it is a GPU worker's. Only the first
was ever run by us: of the second, the names that it must have are checked (tests/optimizer/techniques).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from controlplane.core.errors import Unprocessable


@dataclass(frozen=True, kw_only=True)
class Timings:
    """A timing cache that the build reads and adds to. `reused`: it began with those of earlier builds."""

    cache: Any
    reused: bool


class Backend(Protocol):
    """`flags` are the builder flags that may be set; whatever else a user could name is never passed on."""

    @property
    def module(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def flags(self) -> frozenset[str]: ...

    def aim(self, trt: Any, config: Any, capabilities: Sequence[str]) -> None:
        """Says what to build for. Raises Unprocessable for what this product cannot build for."""

    def timings(self, config: Any, kept: bytes) -> Timings | None:
        """Lets the build begin with what earlier ones timed on this GPU, where `kept` is that. Returns the timing cache
        to keep until after the build; None for a product that has none."""

    def fault(self, trt: Any, log: Any, plan: bytes) -> str:
        """What is wrong with a finished engine, as far as this machine can tell; empty for nothing."""


@dataclass(frozen=True, kw_only=True)
class Rtx:
    """Has no timing cache: it times nothing, and its calls for one do nothing but ask for a GPU. What it can keep is
    its runtime cache, of kernels compiled where an engine is loaded, which is the server's. Compatibility levels,
    refitting and stripped plans are ignored or fail without a GPU, so they are no flags of it."""

    module: str = "tensorrt_rtx"
    label: str = "TensorRT for RTX"
    flags: frozenset[str] = frozenset({"TF32"})

    def aim(self, trt: Any, config: Any, capabilities: Sequence[str]) -> None:
        """Always says the list: without one, an FP8 engine that some of these GPUs cannot run builds silently."""
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, name_of(capability)), index)

    def timings(self, config: Any, kept: bytes) -> None:
        return None

    def fault(self, trt: Any, log: Any, plan: bytes) -> str:
        """Invalid without a diagnosis means that there is no driver here to ask."""
        runtime = trt.Runtime(log)
        validity, diagnosis = runtime.get_engine_validity(plan[: runtime.engine_header_size])
        if validity == trt.EngineValidity.INVALID and diagnosis:
            return f"TensorRT calls its own engine invalid (diagnosis {diagnosis})"
        return ""


@dataclass(frozen=True, kw_only=True)
class TensorRt:
    """Never run by us. Builds for the GPU that is there, so exactly one capability can be asked for."""

    module: str = "tensorrt"
    label: str = "TensorRT"
    flags: frozenset[str] = frozenset({"TF32", "VERSION_COMPATIBLE", "REFIT", "STRIP_PLAN"})

    def aim(self, trt: Any, config: Any, capabilities: Sequence[str]) -> None:
        if len(capabilities) != 1:
            raise Unprocessable(
                "one_capability",
                "TensorRT builds for the GPU of this worker only.",
                f"Asked for: {', '.join(capabilities)}. Choose the one that the worker has.",
            )
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE

    def timings(self, config: Any, kept: bytes) -> Timings:
        """What it cannot read becomes an empty cache, with a warning in its log; what is of another GPU or version it
        refuses to begin with."""
        empty = config.create_timing_cache(b"")
        found = config.create_timing_cache(kept) if kept else empty
        if (
            found
            and found.serialize().nbytes > empty.serialize().nbytes
            and config.set_timing_cache(found, False)
        ):
            return Timings(cache=found, reused=True)
        config.set_timing_cache(empty, False)
        return Timings(cache=empty, reused=False)

    def fault(self, trt: Any, log: Any, plan: bytes) -> str:
        loaded = trt.Runtime(log).deserialize_cuda_engine(plan)
        return "" if loaded is not None else "TensorRT cannot load the engine that it built"


BACKENDS: tuple[Backend, ...] = (Rtx(), TensorRt())


def here() -> Backend:
    """The one that this toolchain has. Raises Unprocessable("no_toolchain")."""
    for backend in BACKENDS:
        if find_spec(backend.module) is not None:
            return backend
    raise Unprocessable(
        "no_toolchain", "TensorRT is not installed on this worker.", "Install its toolchain there."
    )


def load(backend: Backend) -> Any:
    return import_module(backend.module)


def set_flags(trt: Any, config: Any, backend: Backend, wanted: Iterable[str]) -> list[str]:
    """Exactly the wanted ones of those that the backend has, sorted."""
    chosen = sorted(set(wanted) & backend.flags)
    for name in sorted(backend.flags):
        (config.set_flag if name in chosen else config.clear_flag)(getattr(trt.BuilderFlag, name))
    return chosen


def name_of(capability: str) -> str:
    """“8.6” as the vendor names it: SM86."""
    return f"SM{capability.replace('.', '')}"


def capability_of(name: str) -> str:
    """The other way: sm86, SM120."""
    digits = name.lower().removeprefix("sm")
    return f"{digits[:-1]}.{digits[-1]}"
