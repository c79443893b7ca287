"""Every name of the vendor's API that the builder uses exists in both products.

Of TensorRT for RTX the builds themselves show it. TensorRT is on no public index as a whole; its bindings are (the
package `tensorrt-cu12-bindings`), and import against empty libraries of the three names they link to. Where the
toolchain has them, or the whole of TensorRT, this looks.
"""

import json
import subprocess
from typing import Any, get_args

import pytest

from optimizer.techniques.tensorrt.backends import BACKENDS, Backend
from optimizer.techniques.tensorrt.technique import Compatibility
from tests.toolchains import interpreter

COMMON = [
    "Builder.create_network",
    "Builder.create_builder_config",
    "Builder.create_optimization_profile",
    "Builder.build_serialized_network",
    "OnnxParser.parse",
    "OnnxParser.num_errors",
    "OnnxParser.get_error",
    *(f"ParserError.{name}" for name in ("code", "desc", "node_name", "node_operator")),
    "ErrorCode.MEM_ALLOC_FAILED",
    *(
        f"INetworkDefinition.{name}"
        for name in ("num_inputs", "num_outputs", "num_layers", "get_input", "get_output")
    ),
    *(f"ITensor.{name}" for name in ("name", "dtype", "shape")),
    *(
        f"IBuilderConfig.{name}"
        for name in ("set_flag", "clear_flag", "set_memory_pool_limit", "progress_monitor")
    ),
    "IBuilderConfig.add_optimization_profile",
    "IOptimizationProfile.set_shape",
    "MemoryPoolType.WORKSPACE",
    "IHostMemory.nbytes",
    "ILogger.log",
    *(f"ILogger.Severity.{name}" for name in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")),
    *(f"IProgressMonitor.{name}" for name in ("phase_start", "step_complete", "phase_finish")),
    "Runtime.deserialize_cuda_engine",
    "Runtime.engine_host_code_allowed",
    "nptype",
    "TensorIOMode.INPUT",
    *(
        f"ICudaEngine.{name}"
        for name in ("num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_dtype")
    ),
    "ICudaEngine.create_execution_context",
    *(f"IExecutionContext.{name}" for name in ("set_input_shape", "infer_shapes", "get_tensor_shape")),
    *(f"IExecutionContext.{name}" for name in ("set_tensor_address", "execute_async_v3")),
    "__version__",
]
OWN = {
    "tensorrt_rtx": [
        *(f"ComputeCapability.SM{name}" for name in ("75", "80", "86", "89", "120", "121")),
        "IBuilderConfig.num_compute_capabilities",
        "IBuilderConfig.set_compute_capability",
        "Runtime.engine_header_size",
        "Runtime.get_engine_validity",
        "EngineValidity.INVALID",
        "ICudaEngine.create_runtime_config",
        "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
        "DynamicShapesKernelSpecializationStrategy.EAGER",
    ],
    "tensorrt": [
        *(f"HardwareCompatibilityLevel.{level.upper()}" for level in get_args(Compatibility.__value__)),
        "IBuilderConfig.hardware_compatibility_level",
        *(f"IBuilderConfig.{verb}_timing_cache" for verb in ("create", "set")),
        "ITimingCache.serialize",
    ],
}
SCRIPT = """
import importlib, importlib.util, json, sys
asked = json.loads(sys.argv[1])
module = next((name for name in asked["modules"] if importlib.util.find_spec(name)), None)
lacking = None
if module:
    found, lacking = importlib.import_module(module), []
    for name in asked["names"]:
        here = found
        for part in name.split("."):
            here = getattr(here, part, None)
        if here is None:
            lacking.append(name)
print(json.dumps(lacking))
"""


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=lambda backend: backend.module)
def test_what_the_builder_calls_is_there(backend: Backend) -> None:
    asked: dict[str, Any] = {
        "modules": [backend.module, f"{backend.module}_bindings"],
        "names": [*COMMON, *OWN[backend.module], *(f"BuilderFlag.{name}" for name in sorted(backend.flags))],
    }
    done = subprocess.run(
        [interpreter("tensorrt"), "-c", SCRIPT, json.dumps(asked)], capture_output=True, text=True, check=True
    )
    lacking = json.loads(done.stdout)
    if lacking is None:
        pytest.skip(f"not run: the toolchain has no package of {backend.label}")
    assert lacking == []


def test_what_runs_an_engine_calls_is_there() -> None:
    """Needs no GPU: CUDA's bindings import without a driver, and each call then answers that there is none."""
    names = [f"cuda{name}" for name in ("StreamCreate", "Malloc", "Free", "MemcpyAsync", "StreamSynchronize")]
    names += ["cudaGetErrorString", "cudaMemGetInfo", "cudaMemcpyKind.cudaMemcpyDeviceToHost"]
    names += ["cudaMemcpyKind.cudaMemcpyHostToDevice"]
    asked = {"modules": ["cuda.bindings.runtime"], "names": names}
    done = subprocess.run(
        [interpreter("tensorrt"), "-c", SCRIPT, json.dumps(asked)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
