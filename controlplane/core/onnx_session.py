"""How ONNX Runtime is set: what measures a model and what serves it must not differ in that.

Imports neither the runtime nor anything of ours: a replica has little else.
"""

from typing import Any

SLOWER = "SkipLayerNormFusion"
"""The one default of ONNX Runtime that is not the fastest on a CPU: the kernel that stands for an addition and a layer
normalization goes number by number, the two kernels that it replaces do not (ADR 0023)."""


def set_up(options: Any, *, threads: int) -> Any:
    """The same `onnxruntime.SessionOptions`: every other graph optimization, and no node that runs beside another."""
    options.add_session_config_entry("optimization.disable_specified_optimizers", SLOWER)
    return set_up_for_gpu(options, threads=threads)


def set_up_for_gpu(options: Any, *, threads: int) -> Any:
    """The same with every graph optimization: SLOWER is a finding on CPUs."""
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return options
