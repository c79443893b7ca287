"""TorchScript with its signature: a zip of one `.pt` and a `signature.json`. Nothing of the script is read here.

Opening TorchScript runs it, so where it is not allowed it is refused, and where it is, an admin still has to trust the
version before a job opens it (`registry.trust`). Shapes are not in the file, which is why they come beside it.
"""

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controlplane.core.errors import Unprocessable
from controlplane.registry.intake.archive import Member, unsafe
from controlplane.registry.intake.recognize import UNSAFE
from controlplane.registry.intake.signature import batch_axis, unsupported
from controlplane.registry.intake.tensors import SIGNATURE_TYPES, quoted
from controlplane.registry.intake.torch_archive import LONG_AGO, unbroken

SIGNATURE, SCRIPT = "signature.json", "model.pt"
MAX_SIGNATURE_BYTES = 1024**2
MAX_PORTS, MAX_DIMENSIONS, MAX_SIZE = 100, 8, 2**31 - 1
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,127}")
_CHUNK = 1024**2


def is_script(names: Sequence[str]) -> bool:
    return SIGNATURE in names and sum(name.endswith(".pt") for name in names) == 1


def inspect(
    archive: zipfile.ZipFile, members: Sequence[Member], target: Path, *, allowed: bool
) -> dict[str, Any]:
    """Writes both files to `target` and returns `signature` and `summary`. Raises Unprocessable: `unsafe_format`,
    `bad_script`, `unsupported_signature`, `broken_archive`."""
    if not allowed:
        raise Unprocessable(
            "unsafe_format",
            UNSAFE,
            "This is TorchScript, which is not accepted here. Export the model with torch.export and upload the .pt2, "
            "or export it to ONNX. An operator can allow TorchScript with SLIPWAY_TORCHSCRIPT.",
        )
    files = {member.name: member for member in members}
    script = next(member for member in members if member.name.endswith(".pt"))
    if len(files) > 2:
        raise unsafe(f"Beside {quoted(script.name)} and {SIGNATURE} it has {len(files) - 2} other members")
    signature = _signature(_read(archive, files[SIGNATURE]))
    _check_is_script(archive, script)
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as out:
        out.writestr(zipfile.ZipInfo(SIGNATURE, LONG_AGO), json.dumps(signature, sort_keys=True))
        with (
            unbroken(script),
            archive.open(script.info) as source,
            out.open(zipfile.ZipInfo(SCRIPT, LONG_AGO), "w", force_zip64=True) as file,
        ):
            while chunk := source.read(_CHUNK):
                file.write(chunk)
    return {
        "signature": signature,
        "summary": {
            "size_bytes": target.stat().st_size,
            "opset": {},
            "producer": "TorchScript",
            "operators": [],
            "parameters": None,
            "precision": "fp32",
            "findings": ["Opening it runs its code, so nothing of it was looked at but its members."],
        },
    }


def _read(archive: zipfile.ZipFile, member: Member) -> bytes:
    if member.size_bytes > MAX_SIGNATURE_BYTES:
        raise _bad(f"its {SIGNATURE} has more than {MAX_SIGNATURE_BYTES:,} bytes")
    with unbroken(member), archive.open(member.info) as source:
        return source.read(MAX_SIGNATURE_BYTES)


def _check_is_script(archive: zipfile.ZipFile, script: Member) -> None:
    """By the table of its members alone."""
    with unbroken(script), archive.open(script.info) as source:
        try:
            with zipfile.ZipFile(source) as inner:
                names = {name.partition("/")[2] for name in inner.namelist()}
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise _bad(f"{quoted(script.name)} was not written by torch.jit.save") from error
    if not {"data.pkl", "constants.pkl"} <= names or not any(name.startswith("code/") for name in names):
        raise _bad(f"{quoted(script.name)} was not written by torch.jit.save: it is a pickle of torch.save")


def _signature(text: bytes) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(f"its {SIGNATURE} is not JSON") from error
    if not isinstance(given, dict) or set(given) != {"inputs", "outputs"}:
        raise _bad(f"its {SIGNATURE} is not an object of “inputs” and “outputs”")
    found: dict[str, Any] = {what: _ports(given[f"{what}s"], what) for what in ("input", "output")}
    signature: dict[str, Any] = {"inputs": found["input"], "outputs": found["output"]}
    names = [port["name"] for ports in signature.values() for port in ports]
    if len(set(names)) < len(names):
        raise unsupported("Two of its inputs and outputs have the same name.")
    return signature | {"batch_axis": batch_axis(signature)}


def _ports(given: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_PORTS:
        raise unsupported(f"Its {SIGNATURE} lists no {what}s, or more than {MAX_PORTS}.")
    return [_port(port, what) for port in given]


def _port(given: Any, what: str) -> dict[str, Any]:
    if not isinstance(given, dict) or set(given) != {"name", "dtype", "shape"}:
        raise unsupported(f"An {what} in {SIGNATURE} is not an object of “name”, “dtype” and “shape”.")
    name, dtype, shape = given["name"], given["dtype"], given["shape"]
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise unsupported(f"An {what} has no usable name: letters, digits, “_” and “.”.")
    if not isinstance(dtype, str) or dtype not in SIGNATURE_TYPES - {"BYTES"}:
        raise unsupported(f"The {what} “{name}” has no usable “dtype”, such as FP32 or INT64.")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(map(_is_size, shape)):
        raise unsupported(f'The {what} “{name}” has no usable “shape”, such as ["batch", 3, 224, 224].')
    return {"name": name, "dtype": dtype, "shape": shape}


def _is_size(value: Any) -> bool:
    if isinstance(value, str):
        return _NAME.fullmatch(value) is not None
    return type(value) is int and 0 < value <= MAX_SIZE


def _bad(why: str) -> Unprocessable:
    return Unprocessable(
        "bad_script",
        "This TorchScript archive cannot be used.",
        f"{why[0].upper()}{why[1:]}. Zip the file of torch.jit.save together with a {SIGNATURE}.",
    )
