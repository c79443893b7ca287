"""Every name of the vendor's API that the builder uses exists in both products.

Of TensorRT for RTX the builds themselves show it. TensorRT is on no public index as a whole; its bindings are (the
package `tensorrt-cu12-bindings`), and import against empty libraries of the three names they link to. Where the
toolchain has them, or the whole of TensorRT, this looks.
"""

import json
import subprocess
from typing import Any

import pytest

from optimizer.techniques.tensorrt.backends import BACKENDS, Backend
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
    "Runtime",
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
    ],
    "tensorrt": [
        "HardwareCompatibilityLevel.NONE",
        "IBuilderConfig.hardware_compatibility_level",
        "Runtime.deserialize_cuda_engine",
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


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.module)
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
