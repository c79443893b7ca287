"""Olive's default result of one pass, in Olive's own environment: `python optimizer_speedup_olive.py SPEC`.

SPEC is JSON: model, pass (Olive's name), options (of the pass), out (folder), and calibration (npz of inputs) where the
pass takes one. Prints the path of what it made. Olive is at https://github.com/microsoft/Olive, 0.13 (MIT).
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

ITEMS = "calibration_items"


def main(spec: dict[str, Any]) -> None:
    os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"
    from olive.workflows import run

    system = {
        "type": "LocalSystem",
        "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
    }
    chosen: dict[str, Any] = {"type": spec["pass"], **spec.get("options", {})}
    config: dict[str, Any] = {
        "input_model": {"type": "ONNXModel", "model_path": spec["model"]},
        "systems": {"here": system},
        "host": "here",
        "target": "here",
        "passes": {"chosen": chosen},
        "output_dir": spec["out"],
        "cache_dir": f"{spec['out']}/cache",
        "log_severity_level": 3,
    }
    if spec.get("calibration"):
        _offer(Path(spec["calibration"]))
        chosen["data_config"] = "items"
        config["data_configs"] = [
            {
                "name": "items",
                "load_dataset_config": {"type": ITEMS},
                "pre_process_data_config": {"type": "skip_pre_process"},
                "post_process_data_config": {"type": "skip_post_process"},
                "dataloader_config": {"batch_size": 1},
            }
        ]
    run(config)
    print(Path(spec["out"]) / "model.onnx")


def _offer(npz: Path) -> None:
    """The items under the name by which the configuration asks for them."""
    import numpy as np
    from olive.data.registry import Registry
    from torch.utils.data import Dataset

    with np.load(npz) as archive:
        columns = {name: archive[name] for name in archive.files if name != "labels"}

    class Items(Dataset[Any]):
        def __len__(self) -> int:
            return min(len(column) for column in columns.values())

        def __getitem__(self, index: int) -> Any:
            return {name: column[index] for name, column in columns.items()}, 0

    Registry.register_dataset(ITEMS)(lambda **_: Items())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
