"""A zipped folder of transformers: `config.json` names the architecture, `model.safetensors` has the weights; files
like `model-00001-of-00003.safetensors` become one.

Both are data. Refused is what would make transformers look for code or files elsewhere; of the folder's other members
nothing is kept. What goes in and comes out is not in the files: it is known for the tasks listed here, and a model of
another one is better exported by its author.
"""

import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.archive import Member
from controlplane.registry.intake.recognize import MAX_SAFETENSORS_HEADER
from controlplane.registry.intake.signature import unsupported
from controlplane.registry.intake.tensors import quoted
from controlplane.registry.intake.torch_archive import LONG_AGO, unbroken

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
MAX_CONFIG_BYTES = 1024**2
_CHUNK = 1024**2
_CODE = frozenset({"auto_map", "custom_pipelines", "trust_remote_code", "quantization_config"})
_DROPPED = frozenset(
    {"_name_or_path", "_attn_implementation", "attn_implementation", "experts_implementation"}
)
"""Paths of whoever saved it, and kernels that would be fetched."""
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_NAMES = {
    "F64": "FP64",
    "F32": "FP32",
    "I64": "INT64",
    "I32": "INT32",
    "I16": "INT16",
    "I8": "INT8",
    "U8": "UINT8",
}
_TEXT = frozenset(
    {"albert", "bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta", "modernbert"}
)
_IMAGE = frozenset({"beit", "convnext", "convnextv2", "deit", "resnet", "swin", "vit"})
_BATCH, _SEQUENCE = "batch", "sequence"


def is_folder(names: Sequence[str]) -> bool:
    """A configuration with weights beside it, at the top or one folder deep."""
    weights = weights_by_folder(names)
    return any(_is_config(name) and folder_of(name) in weights for name in names)


def weights_by_folder(names: Iterable[str]) -> dict[str, list[str]]:
    """The file with the weights, or all of those that they are split over."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):  # what is split comes first, and gives way to what is not
        folder, _, base = name.rpartition("/")
        if base == WEIGHTS:
            found[folder] = [name]
        elif SHARD.fullmatch(base):
            found.setdefault(folder, []).append(name)
    return found


def folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def _is_config(name: str) -> bool:
    return name.rpartition("/")[2] == CONFIG and name.count("/") <= 1


def inspect(archive: zipfile.ZipFile, members: Sequence[Member], target: Path) -> dict[str, Any]:
    """Writes both files to `target` and returns `signature` and `summary`. Raises Unprocessable: `unsafe_format`,
    `bad_folder`, `bad_tensor`, `unsupported_signature`, `broken_archive`."""
    files = {member.name: member for member in members}
    found_weights = weights_by_folder(files)
    configs = [name for name in files if _is_config(name) and folder_of(name) in found_weights]
    if len(configs) > 1:
        raise _bad(f"it holds {len(configs)} models; one is registered at a time")
    config = _config(archive, files[configs[0]])
    weights = [files[name] for name in found_weights[folder_of(configs[0])]]
    _refuse_incomplete([member.name.rpartition("/")[2] for member in weights])
    found = _signature(config)
    heads = [_head(archive, member) for member in weights]
    header = _joined([header for header, _ in heads])
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as out:
        out.writestr(zipfile.ZipInfo(CONFIG, LONG_AGO), json.dumps(config, sort_keys=True))
        with out.open(zipfile.ZipInfo(WEIGHTS, LONG_AGO), "w", force_zip64=True) as file:
            file.write(heads[0][1] if len(heads) == 1 else _written(header))
            for member, (_, raw) in zip(weights, heads, strict=True):
                with unbroken(member), archive.open(member.info) as source:
                    source.read(len(raw))
                    while chunk := source.read(_CHUNK):
                        file.write(chunk)
    return {"signature": found, "summary": _summary(config, header, size_bytes=target.stat().st_size)}


def _refuse_incomplete(names: Sequence[str]) -> None:
    shards = [found for name in names if (found := SHARD.fullmatch(name))]
    if not shards:
        return
    count = int(shards[0][2])
    has = {int(shard[1]) for shard in shards}
    if (
        len(shards) != count
        or has != set(range(1, count + 1))
        or any(int(shard[2]) != count for shard in shards)
    ):
        raise _bad(f"its weights are split over {count} files, and {len(shards)} of them are in the archive")


def _head(archive: zipfile.ZipFile, member: Member) -> tuple[dict[str, Any], bytes]:
    with unbroken(member), archive.open(member.info) as source:
        return _header(source, member)


def _joined(headers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of one file with the values of all, one after the other."""
    joined: dict[str, Any] = {}
    end = 0
    for header in headers:
        begin = end
        for name, row in header.items():
            if name in joined:
                raise _bad(f"two of its files have the tensor {quoted(name)}")
            first, last = row["data_offsets"]
            joined[name] = row | {"data_offsets": [begin + first, begin + last]}
            end = max(end, begin + last)
    return joined


def _written(header: Mapping[str, Any]) -> bytes:
    """Values begin at a multiple of eight bytes (safetensors' format)."""
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _config(archive: zipfile.ZipFile, member: Member) -> dict[str, Any]:
    if member.size_bytes > MAX_CONFIG_BYTES:
        raise _bad(f"its {CONFIG} has more than {MAX_CONFIG_BYTES:,} bytes")
    try:
        with unbroken(member), archive.open(member.info) as source:
            config = json.loads(source.read(MAX_CONFIG_BYTES))
        _refuse_code(config)
    except (ValueError, RecursionError) as error:
        raise _bad(f"its {CONFIG} is not JSON") from error
    if not isinstance(config, dict):
        raise _bad(f"its {CONFIG} is not an object")
    architectures = config.get("architectures")
    if not (isinstance(architectures, list) and len(architectures) == 1) or not all(
        isinstance(name, str) and re.fullmatch(r"[A-Z][A-Za-z0-9]{2,80}", name) for name in architectures
    ):
        raise _bad(f"its {CONFIG} does not name one architecture, such as “BertModel”")
    return {key: value for key, value in config.items() if key not in _DROPPED}


def _refuse_code(value: Any) -> None:
    match value:
        case dict():
            for key, inner in value.items():
                if key in _CODE and inner:
                    raise _refusal(key)
                _refuse_code(inner)
        case list():
            for inner in value:
                _refuse_code(inner)


def _refusal(key: str) -> Unprocessable:
    if key == "quantization_config":
        return _bad("it is quantized by a library of its own. Register the original: INT8 is made here")
    return Unprocessable(
        "unsafe_format",
        "This model asks for code of its own, which is never run.",
        f"Its {CONFIG} has {quoted(key)}. Register a model whose architecture is part of transformers, or export it "
        "with torch.export where you trust its code.",
    )


def _header(source: Any, member: Member) -> tuple[dict[str, Any], bytes]:
    """The tensors by name, and the bytes that say so. Every byte after them belongs to exactly one tensor."""
    prefix = source.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or not 2 <= length <= min(MAX_SAFETENSORS_HEADER, member.size_bytes - 8):
        raise _bad(f"its {quoted(member.name)} is no safetensors file, or is cut off")
    raw = source.read(length)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        at = 0
        for name, row in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = row["data_offsets"]
            size = _BYTES[row["dtype"]] * math.prod(row["shape"])
            if begin != at or end - begin != size or any(type(n) is not int or n < 0 for n in row["shape"]):
                raise Unprocessable(
                    "bad_tensor",
                    "A tensor of the model is not what it declares.",
                    f"The tensor {quoted(name)} does not fit its place in {quoted(member.name)}. Save the model again.",
                )
            at = end
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _bad(f"the header of its {quoted(member.name)} cannot be read") from error
    if at + 8 + length != member.size_bytes:
        raise _bad(
            f"its {quoted(member.name)} has {member.size_bytes - 8 - length:,} bytes of values; {at:,} are declared"
        )
    return header, prefix + raw


def _signature(config: Mapping[str, Any]) -> dict[str, Any]:
    (architecture,) = config["architectures"]
    kind = config.get("model_type")
    if kind in _TEXT:
        inputs = [_port(name, "INT64", _BATCH, _SEQUENCE) for name in ("input_ids", "attention_mask")]
    elif kind in _IMAGE:
        size = _number(config, "image_size") or 224
        inputs = [_port("pixel_values", "FP32", _BATCH, _number(config, "num_channels") or 3, size, size)]
    else:
        raise _unknown(f"of the type {quoted(str(kind)[:60])}")
    return {"inputs": inputs, "outputs": _outputs(architecture, kind, config), "batch_axis": 0}


def _outputs(architecture: str, kind: str, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    labels = len(config.get("id2label") or ()) or _number(config, "num_labels") or 2
    width = _number(config, "hidden_size") or _number(config, "dim") or "?0"
    task = architecture.partition("For")[2]
    match task:
        case "" if kind in _TEXT and architecture.endswith("Model"):
            return [_port("last_hidden_state", "FP32", _BATCH, _SEQUENCE, width)]
        case "SequenceClassification" if kind in _TEXT:
            return [_port("logits", "FP32", _BATCH, labels)]
        case "ImageClassification" if kind in _IMAGE:
            return [_port("logits", "FP32", _BATCH, labels)]
        case "TokenClassification" if kind in _TEXT:
            return [_port("logits", "FP32", _BATCH, _SEQUENCE, labels)]
        case "MaskedLM" if kind in _TEXT:
            return [_port("logits", "FP32", _BATCH, _SEQUENCE, _number(config, "vocab_size") or "?0")]
        case "QuestionAnswering" if kind in _TEXT:
            return [_port(name, "FP32", _BATCH, _SEQUENCE) for name in ("start_logits", "end_logits")]
    raise _unknown(f"of the architecture {quoted(architecture)}")


def _port(name: str, dtype: str, *shape: int | str) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape)}


def _number(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if type(value) is int and 0 < value < 2**24 else None


def _unknown(what: str) -> Unprocessable:
    return unsupported(
        f"What a model {what} takes and gives is not known here. Export it with torch.export and upload the .pt2, "
        "or export it to ONNX."
    )


def _summary(config: Mapping[str, Any], header: Mapping[str, Any], *, size_bytes: int) -> dict[str, Any]:
    sizes: Counter[str] = Counter()
    for row in header.values():
        name = _NAMES.get(
            row["dtype"], row["dtype"].replace("F16", "FP16") if row["dtype"] == "F16" else row["dtype"]
        )
        sizes[name] += _BYTES[row["dtype"]] * math.prod(row["shape"])
    floats = {name: sizes[name] for name in ("FP32", "FP16", "BF16", "FP64")}
    stored = max(floats, key=lambda name: floats[name])
    findings = ["Only config.json and model.safetensors were kept."]
    if stored != "FP32":
        findings.append(f"The weights are stored as {stored}; they are run and exported as FP32.")
    return {
        "size_bytes": size_bytes,
        "opset": {},
        "producer": f"transformers {config.get('transformers_version', '')}".strip()[:100],
        "architecture": config["architectures"][0],
        "operators": [],
        "parameters": sum(math.prod(row["shape"]) for row in header.values()),
        "parameter_bytes": dict(sizes.most_common()),
        "precision": "fp32",
        "findings": findings,
    }


def _bad(why: str) -> Unprocessable:
    return Unprocessable(
        "bad_folder",
        "This transformers folder cannot be used.",
        f"{why[0].upper()}{why[1:]}. Save it again with save_pretrained and zip the folder.",
    )
