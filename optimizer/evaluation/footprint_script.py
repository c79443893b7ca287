"""Run by path in a fresh process: loads one model, answers once, prints what that took as JSON.

Imports nothing of ours, because inside the sandbox the folder of our packages cannot be listed by a process
that starts there. Models are opened as `optimizer.workbench` opens them; the runtime itself is loaded before anything
is counted.
"""

import io
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

type Answer = Callable[[dict[str, Any]], object]


def resident_bytes() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def opener(name: str, request: dict[str, Any]) -> Any:
    """A module of ours that imports nothing of ours."""
    found = spec_from_file_location(name, request["openers"][name])
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def onnxruntime_loader(request: dict[str, Any]) -> Callable[[], Answer]:
    import onnxruntime

    options = opener("onnx_session", request).set_up(onnxruntime.SessionOptions(), threads=request["threads"])
    options.log_severity_level = 3

    def load() -> Answer:
        session = onnxruntime.InferenceSession(request["path"], options, providers=["CPUExecutionProvider"])
        return lambda feed: session.run(None, feed)

    return load


def openvino_loader(request: dict[str, Any]) -> Callable[[], Answer]:
    import openvino

    openvino_ir = opener("openvino_ir", request)
    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the kernels

    def load() -> Answer:
        opened = openvino_ir.Opened(core, Path(request["path"]), threads=request["threads"])
        return lambda feed: opened.run([], feed)

    return load


def torch_loader(request: dict[str, Any]) -> Callable[[], Answer]:
    import torch
    from torch.export.pt2_archive._package import load_pt2
    from torch.utils import _pytree

    def load() -> Answer:
        torch.set_num_threads(request["threads"])
        with Path(request["path"]).open("rb") as file:
            (program,) = load_pt2(file).exported_programs.values()
        module = program.module(check_guards=False)
        given = [spec.arg for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]

        def answer(feed: dict[str, Any]) -> object:
            flat = [
                torch.from_numpy(feed[each.name]) if each.name in feed else getattr(each, "value", None)
                for each in given
            ]
            args, kwargs = _pytree.tree_unflatten(flat, program.call_spec.in_spec)
            with torch.inference_mode():
                return module(*args, **kwargs)

        return answer

    return load


def transformers_loader(request: dict[str, Any]) -> Callable[[], Answer]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import safetensors.torch
    import torch
    import transformers

    transformers.logging.set_verbosity_error()

    def load() -> Answer:
        torch.set_num_threads(request["threads"])
        with zipfile.ZipFile(request["path"]) as archive:
            given = json.loads(archive.read("config.json"))
            weights = safetensors.torch.load(archive.read("model.safetensors"))
        factory = getattr(transformers, given.pop("architectures")[0])
        config = factory.config_class.from_dict(given)
        module = factory.from_pretrained(None, config=config, state_dict=weights, dtype=torch.float32).eval()

        def answer(feed: dict[str, Any]) -> object:
            with torch.inference_mode():
                return module(**{name: torch.from_numpy(array) for name, array in feed.items()})

        return answer

    return load


def torchscript_loader(request: dict[str, Any]) -> Callable[[], Answer]:
    import torch

    def load() -> Answer:
        torch.set_num_threads(request["threads"])
        with zipfile.ZipFile(request["path"]) as archive:
            names = [port["name"] for port in json.loads(archive.read("signature.json"))["inputs"]]
            module = torch.jit.load(io.BytesIO(archive.read("model.pt")), map_location="cpu").eval()

        def answer(feed: dict[str, Any]) -> object:
            with torch.inference_mode():
                return module(*(torch.from_numpy(feed[name]) for name in names))

        return answer

    return load


def sklearn_loader(request: dict[str, Any]) -> Callable[[], Answer]:
    import threadpoolctl
    from skops.io import load

    def run() -> Answer:
        threadpoolctl.threadpool_limits(request["threads"])
        model = load(request["path"], trusted=request["trusted"])
        ask = getattr(model, "predict_proba", model.predict)
        return lambda feed: ask(*feed.values())

    return run


def device_bytes() -> int | None:
    """In use on the GPU, by whomever."""
    from cuda.bindings import runtime

    _, free, total = runtime.cudaMemGetInfo()
    return total - free if total else None


def onnxruntime_gpu_loader(request: dict[str, Any]) -> Callable[[], Answer]:
    import onnxruntime

    onnxruntime.preload_dlls()
    options = opener("onnx_session", request).set_up_for_gpu(
        onnxruntime.SessionOptions(), threads=request["threads"]
    )
    options.log_severity_level = 3

    def load() -> Answer:
        session = onnxruntime.InferenceSession(request["path"], options, providers=["CUDAExecutionProvider"])
        return lambda feed: session.run(None, feed)

    return load


def engine_loader(request: dict[str, Any]) -> Callable[[], Answer]:
    from cuda.bindings import runtime

    path, engine = Path(request["path"]), opener("engine", request)
    trt = import_module(engine.runtime_of(path))

    def load() -> Answer:
        opened = engine.Engine(trt, runtime, path)
        return lambda feed: opened.run([], feed)

    return load


GPU_LOADERS = {"onnx": onnxruntime_gpu_loader, "tensorrt": engine_loader}
LOADERS = {
    "onnx": onnxruntime_loader,
    "openvino": openvino_loader,
    "torch": torch_loader,
    "transformers": transformers_loader,
    "torchscript": torchscript_loader,
    "sklearn": sklearn_loader,
}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    with np.load(request["feed"], allow_pickle=False) as archive:
        feed = {name: archive[f"arr_{index}"] for index, name in enumerate(request["names"])}
    loaders, held_bytes = (GPU_LOADERS, device_bytes) if request["gpu"] else (LOADERS, resident_bytes)
    load = loaders[request["format"]](request)
    before = held_bytes()
    start = time.perf_counter()
    run = load()
    load_ms = (time.perf_counter() - start) * 1000
    run(feed)
    after = held_bytes()
    grown = after - before if before is not None and after is not None else None
    return {"load_ms": load_ms, "memory_bytes": grown}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answer(json.loads(sys.argv[1]))))
