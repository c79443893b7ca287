"""Builds an engine from an ONNX model. Runs in the toolchain; imports the vendor's package on call."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.core.errors import Unprocessable
from optimizer.techniques.graph import read
from optimizer.techniques.port import Work
from optimizer.techniques.tensorrt import backends, listening, reasons, repairs, sizes
from optimizer.techniques.tensorrt.backends import Backend, Timings
from optimizer.techniques.tensorrt.reasons import Complaint
from optimizer.techniques.tensorrt.technique import EngineParameters
from optimizer.workbench.items import digest, read_npz
from optimizer.workbench.session import open_session
from optimizer.workbench.signature import Signature, TensorSpec

DTYPES = {"FLOAT": "FP32", "HALF": "FP16"} | {
    name: name for name in ("BF16", "FP8", "INT4", "INT8", "INT32", "INT64", "UINT8", "BOOL")
}
"""TensorRT's names of types as signatures have them."""


def run(work: Work, params: EngineParameters) -> dict[str, Any]:
    """Writes the engine to `work.output`; returns what it is bound to, under `engine`.

    Raises Unprocessable: `asymmetric_quantization`, `rank_unknown`, `unknown_axes`, `reads_differently`, `stopped`,
    and what `reasons` makes of TensorRT's refusals. Cost: the model twice in memory, and the build.
    """
    backend = backends.here(params.builder)
    trt = backends.load(backend)
    model, done = _prepared(work)
    heard = listening.Heard(journal=work.journal)
    log = listening.logger(trt, heard)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    _parse(trt, network, log, model)
    _refuse_other_values(network, work.signature)
    if shaping := [value.name for value in _inputs(network) if value.is_shape_tensor]:
        raise reasons.of_shape_inputs(shaping)
    site = _Site(
        trt=trt, backend=backend, heard=heard, builder=builder, network=network, work=work, params=params
    )
    built = site.built()
    plan, timings = built.plan, built.timings
    work.output.write_bytes(plan)
    if fault := backend.fault(trt, log, work.output.read_bytes()):
        raise Unprocessable("result_invalid", "The engine that was built is not valid.", f"{fault}.")
    work.journal.info(
        f"{network.num_layers} layers became an engine of {plan.nbytes:,} bytes in {built.took_s:.1f} s"
        f"{', with timings of earlier builds' if timings and timings.reused else ''}."
    )
    if timings and work.cache:
        work.cache.write_bytes(timings.cache.serialize())
    return {
        "prepared": done,
        "engine": {
            "backend": backend.module,
            "label": backend.label,
            "version": trt.__version__,
            "capabilities": list(params.capabilities),
            "flags": built.flags,
            "hardware_compatibility": params.hardware_compatibility,
            "workspace_mib": params.workspace_mib,
            "profiles": [built.profile] if built.profile else [],
            "inputs": list(map(_described, _inputs(network))),
            "outputs": list(map(_described, _outputs(network))),
            "layers": network.num_layers,
            "size_bytes": plan.nbytes,
            "build_s": round(built.took_s, 2),
            "timing_cache": "none" if timings is None else "hit" if timings.reused else "fresh",
            "source_sha256": digest(work.input),
            "log_tail": list(heard.tail),
        },
    }


@dataclass(frozen=True, kw_only=True)
class _Built:
    """`profile` by input; empty where no axis is open."""

    plan: Any
    profile: Mapping[str, Any]
    flags: list[str]
    timings: Timings | None
    took_s: float


@dataclass(frozen=True, kw_only=True)
class _Site:
    """A network that was read, and who builds it."""

    trt: Any
    backend: Backend
    heard: listening.Heard
    builder: Any
    network: Any
    work: Work
    params: EngineParameters

    def built(self) -> _Built:
        """For the sizes that were asked for and the usual ones; where TensorRT refuses those, for what the items of the
        data set have."""
        signature, asked = self.work.signature, self.params.axes
        shapes = [spec.shape for spec in signature.inputs]
        ranges = sizes.ranges(shapes, batched=signature.batched, asked=asked)
        try:
            return self._built(ranges)
        except Unprocessable as error:
            if error.code not in reasons.OF_SIZES:
                raise
            given = dict(map(sizes.Range.read, asked))
            seen = {axis: size for axis, size in _sizes_of_items(self.work).items() if axis not in given}
            if not seen:
                raise
            self.work.journal.warning(f"{error.detail} Building for the sizes of the data set instead.")
        self.heard.errors.clear()
        return self._built(ranges | seen)

    def _built(self, ranges: Mapping[str, sizes.Range]) -> _Built:
        config = self.builder.create_builder_config()
        profile = self._aim(config, ranges)
        wanted = {"TF32": self.params.tf32, "VERSION_COMPATIBLE": self.params.version_compatible}
        flags = backends.set_flags(self.trt, config, self.backend, filter(wanted.get, wanted))
        timings = self.backend.timings(config, _kept(self.work))
        watching = listening.monitor(self.trt, self.work.journal)
        config.progress_monitor = watching
        began = time.monotonic()
        plan = self.builder.build_serialized_network(self.network, config)
        if plan is None:
            raise reasons.of_builder(self.heard.errors)
        took_s = time.monotonic() - began
        return _Built(plan=plan, profile=profile, flags=flags, timings=timings, took_s=took_s)

    def _aim(self, config: Any, ranges: Mapping[str, sizes.Range]) -> dict[str, Any]:
        """What the engine is for: GPUs, memory, sizes. Returns the profile."""
        said = ", ".join(f"{axis} {size}" for axis, size in ranges.items()) or "no open axes"
        capabilities = self.params.capabilities
        self.work.journal.info(f"Building for compute capability {', '.join(capabilities)}; {said}.")
        self.backend.aim(self.trt, config, self.params)
        config.set_memory_pool_limit(self.trt.MemoryPoolType.WORKSPACE, self.params.workspace_mib * 2**20)
        shapes = {spec.name: spec.shape for spec in self.work.signature.inputs}
        profile, chosen = self.builder.create_optimization_profile(), {}
        for value in _inputs(self.network):
            if -1 in value.shape:
                named = zip(value.shape, shapes[value.name], strict=True)
                least, tuned, most = sizes.profile(
                    [name if size == -1 else size for size, name in named], ranges
                )
                profile.set_shape(value.name, least, tuned, most)
                chosen[value.name] = {"min": least, "opt": tuned, "max": most}
        if chosen and config.add_optimization_profile(profile) < 0:
            raise Unprocessable("sizes_refused", "TensorRT refuses the sizes of the open axes.", f"{chosen}.")
        return chosen


def _sizes_of_items(work: Work) -> dict[str, sizes.Range]:
    """Of every open axis but the batch, if there is a data set."""
    if work.calibration is None:
        return {}
    feed = read_npz(work.calibration, work.signature).feed([0])
    found = {
        name: sizes.Range(least=size, tuned=size, most=size)
        for spec in work.signature.inputs
        for name, size in zip(spec.shape, feed[spec.name].shape, strict=True)
        if isinstance(name, str)
    }
    if work.signature.batched:
        for spec in work.signature.inputs:
            found.pop(str(spec.shape[0]), None)
    return found


def _kept(work: Work) -> bytes:
    return work.cache.read_bytes() if work.cache and work.cache.exists() else b""


def _prepared(work: Work) -> tuple[Any, list[str]]:
    """The model as TensorRT shall read it, and what was done to it. What no other runtime opens, it may well build."""
    open_session(work.input)
    model = read(work.input)
    repairs.refuse_misread(model)
    done = repairs.repair(model)
    for what in done:
        work.journal.info(f"Prepared: {what}.")
    return model, done


def _parse(trt: Any, network: Any, log: Any, model: Any) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse(model.SerializeToString()):
        return
    domains = {node.name: node.domain for node in model.graph.node}
    found = [parser.get_error(index) for index in range(parser.num_errors)]
    if any(error.code() == trt.ErrorCode.MEM_ALLOC_FAILED for error in found):
        raise MemoryError
    raise reasons.of_parser(
        [
            Complaint(
                code=error.code().name,
                words=error.desc(),
                operator=error.node_operator(),
                node=error.node_name(),
                domain=domains.get(error.node_name(), ""),
            )
            for error in found
        ]
    )


def _refuse_other_values(network: Any, signature: Signature) -> None:
    """TensorRT takes doubles for floats, and what it has no rank of for a single number, and says nothing."""
    read = {value.name: value for value in (*_inputs(network), *_outputs(network))}
    if unknown := sorted(read.keys() - {spec.name for spec in (*signature.inputs, *signature.outputs)}):
        raise Unprocessable(
            "reads_differently",
            "TensorRT reads other inputs or outputs than the model has.",
            f"It also has {', '.join(f'“{name}”' for name in unknown)}.",
        )
    for spec in (*signature.inputs, *signature.outputs):
        value = read.get(spec.name)
        if value is None or DTYPES.get(value.dtype.name) != spec.dtype or not _same_axes(value.shape, spec):
            seen = "nothing" if value is None else f"{value.dtype.name} {list(value.shape)}"
            raise Unprocessable(
                "reads_differently",
                "TensorRT reads other inputs or outputs than the model has.",
                f"“{spec.name}” is {spec.dtype} {list(spec.shape)}; TensorRT makes {seen} of it.",
            )


def _inputs(network: Any) -> list[Any]:
    return [network.get_input(index) for index in range(network.num_inputs)]


def _outputs(network: Any) -> list[Any]:
    return [network.get_output(index) for index in range(network.num_outputs)]


def _same_axes(shape: Any, spec: TensorSpec) -> bool:
    return len(shape) == len(spec.shape) and all(
        isinstance(wanted, str) or size in (wanted, -1)
        for size, wanted in zip(shape, spec.shape, strict=True)
    )


def _described(value: Any) -> dict[str, Any]:
    return {
        "name": value.name,
        "dtype": DTYPES.get(value.dtype.name, value.dtype.name),
        "shape": [int(size) for size in value.shape],
    }
