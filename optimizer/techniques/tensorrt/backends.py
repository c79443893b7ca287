"""The two products that build engines, and what differs between them. Their Python API is almost one.

TensorRT for RTX builds ahead of time for a list of compute capabilities, without a GPU. TensorRT builds for the GPU
that it finds, and its package is not on the public index; a toolchain that has it is a GPU worker's. Only the first
was ever run by us: of the second, the names that it must have are checked (tests/optimizer/techniques).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Protocol

from controlplane.core.errors import Unprocessable
from optimizer.techniques.tensorrt.technique import Builder, EngineParameters


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
    def package(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def flags(self) -> frozenset[str]: ...

    def aim(self, trt: Any, config: Any, params: EngineParameters) -> None:
        """Says what to build for, of what the technique's check lets through."""

    def timings(self, config: Any, kept: bytes) -> Timings | None:
        """Lets the build begin with what earlier ones timed on this GPU, where `kept` is that. Returns the timing cache
        to keep until after the build; None for a product that has none."""

    def fault(self, trt: Any, log: Any, plan: bytes) -> str:
        """What is wrong with a finished engine, as far as this machine can tell; empty for nothing. It is our own, and
        this process confined: it may carry code."""


@dataclass(frozen=True, kw_only=True)
class Rtx:
    """Has no timing cache: it times nothing, and its calls for one do nothing but ask for a GPU. What it can keep is
    its runtime cache, of kernels compiled where an engine is loaded, which is the server's. Compatibility levels,
    refitting and stripped plans are ignored or fail without a GPU, so they are no flags of it."""

    module: str = "tensorrt_rtx"
    package: str = "tensorrt-rtx-cu12"
    label: str = "TensorRT for RTX"
    flags: frozenset[str] = frozenset({"TF32"})

    def aim(self, trt: Any, config: Any, params: EngineParameters) -> None:
        """Always says the list: without one, an FP8 engine that some of these GPUs cannot run builds silently."""
        config.num_compute_capabilities = len(params.capabilities)
        for index, capability in enumerate(params.capabilities):
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
    """Never run by us. Builds for the GPU that is there, so exactly one capability can be asked for. A version
    compatible engine carries a small runtime, which is code."""

    module: str = "tensorrt"
    package: str = "tensorrt"
    label: str = "TensorRT"
    flags: frozenset[str] = frozenset({"TF32", "VERSION_COMPATIBLE", "REFIT", "STRIP_PLAN"})

    def aim(self, trt: Any, config: Any, params: EngineParameters) -> None:
        """For the GPU that is there: the job's queue says which."""
        level = getattr(trt.HardwareCompatibilityLevel, params.hardware_compatibility.upper())
        config.hardware_compatibility_level = level

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
        runtime = trt.Runtime(log)
        runtime.engine_host_code_allowed = True
        loaded = runtime.deserialize_cuda_engine(plan)
        return "" if loaded is not None else "TensorRT cannot load the engine that it built"


BACKENDS: Mapping[Builder, Backend] = MappingProxyType({"rtx": Rtx(), "tensorrt": TensorRt()})


def here(builder: Builder) -> Backend:
    """The one that was asked for, if this toolchain has it. Raises Unprocessable("no_toolchain")."""
    wanted = BACKENDS[builder]
    if find_spec(wanted.module) is not None:
        return wanted
    raise Unprocessable(
        "no_toolchain",
        f"{wanted.label} is not installed on this worker.",
        f"Install its package into the toolchain “tensorrt” there: {wanted.package}.",
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
