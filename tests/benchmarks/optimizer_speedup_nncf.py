"""NNCF's default quantization, in an environment of its own: `python optimizer_speedup_nncf.py SPEC`.

SPEC is JSON: model (ONNX), out (folder), calibration (npz of inputs), and whether it is a transformer. Prints the path
of OpenVINO's graph, zipped. NNCF is at https://github.com/openvinotoolkit/nncf, 3.4 (Apache-2.0).
"""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any


def main(spec: dict[str, Any]) -> None:
    import nncf
    import numpy as np
    import openvino

    with np.load(spec["calibration"]) as archive:
        columns = {name: archive[name] for name in archive.files if name != "labels"}
    items = range(min(len(column) for column in columns.values()))
    dataset = nncf.Dataset(items, lambda index: {name: column[[index]] for name, column in columns.items()})
    kind = nncf.ModelType.TRANSFORMER if spec["transformer"] else None  # as its manual says
    made = nncf.quantize(openvino.convert_model(spec["model"]), dataset, model_type=kind)
    out = Path(spec["out"])
    openvino.save_model(made, str(out / "model.xml"))
    with zipfile.ZipFile(out / "model.zip", "w", zipfile.ZIP_STORED) as packed:
        for name in ("model.xml", "model.bin"):
            packed.write(out / name, name)
    print(out / "model.zip")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
