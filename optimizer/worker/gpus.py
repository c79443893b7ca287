"""The GPUs that this worker may use, as `nvidia-smi` tells of them: it comes with the driver, and starts no CUDA here.

Where the command is missing there is no GPU. Where it fails, there is none either, and what it said is kept for the
page: a driver that does not answer looks otherwise like a machine without a GPU. Refused: NVML through a package,
one more pin for every worker to say the same.
"""

import csv
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from optimizer.queues import CAPABILITY

MIB = 1024**2
ANSWERS_WITHIN_S = 5.0
FIELDS = ("uuid", "name", "compute_cap", "memory.total", "driver_version", "mig.mode.current")
LOAD_FIELDS = ("uuid", "memory.used", "utilization.gpu")
INSTANCE = re.compile(r"MIG (?P<profile>[^\s:]+)\s+Device\s+\d+: \(UUID: (?P<uuid>MIG-[^)\s]+)\)")
UNIFIED_MEMORY = Path("/dev/nvidia-uvm")
_hanging: list["subprocess.Popen[str]"] = []


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """`capability` is CUDA's compute capability, such as "8.9"; None where the driver is too old to say.
    `mig` are the profiles of its MIG instances by UUID, None where it is not partitioned."""

    uuid: str
    name: str
    capability: str | None = None
    memory_bytes: int | None = None
    mig: Mapping[str, str] | None = None

    @property
    def kind(self) -> str:
        """What makes two alike to a kernel: model, capability and, where it is partitioned, its instances."""
        return " ".join([self.name, self.capability or "", *(self.mig or {}).values()])

    def to_json(self) -> dict[str, Any]:
        return {
            "uuid": self.uuid,
            "name": self.name,
            "capability": self.capability,
            "memory_bytes": self.memory_bytes,
            "mig": None if self.mig is None else list(self.mig.values()),
        }


@dataclass(frozen=True, kw_only=True)
class Found:
    """`problem` is what `nvidia-smi` said instead of an answer."""

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "gpus": [gpu.to_json() for gpu in self.gpus],
            "driver": self.driver,
            "gpu_problem": self.problem,
        }


class Unanswered(Exception):
    """Why `nvidia-smi` gave no answer, in its own words where it has some."""


@cache
def found() -> Found:
    """Asked once: a GPU that comes later is offered after the worker's next start."""
    try:
        table = _ask(*_query(FIELDS))
        gpus, driver = parsed(table, listing=_ask("-L") if "Enabled" in table else "")
    except FileNotFoundError:
        return Found()
    except Unanswered as error:
        return Found(problem=str(error))
    return Found(gpus=visible(gpus, os.environ.get("CUDA_VISIBLE_DEVICES")), driver=driver)


def units(gpus: Iterable[Gpu]) -> list[str]:
    """What a worker each can serve, as CUDA_VISIBLE_DEVICES names it: the instances of a GPU that is partitioned, else
    the GPU."""
    return [uuid for gpu in gpus for uuid in ([gpu.uuid] if gpu.mig is None else gpu.mig)]


def served() -> Gpu | None:
    """The one whose jobs this worker takes: the first that it sees. For another one start another worker, with
    CUDA_VISIBLE_DEVICES."""
    return next(iter(found().gpus), None)


def keep_to_the_first() -> None:
    """What this process starts from now on sees the GPU that the worker serves, and no other: CUDA counts GPUs in
    another order than the driver. A MIG instance that was chosen stays chosen."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if found().gpus and not chosen.startswith("MIG-"):
        os.environ["CUDA_VISIBLE_DEVICES"] = found().gpus[0].uuid


def make_devices() -> None:
    """Has the driver's own command make the device of unified memory, without which there is no CUDA. CUDA would have
    it made by the first process that asks, but that is a confined one here, and the command runs as root."""
    command = shutil.which("nvidia-modprobe")
    if command is None or not found().gpus or UNIFIED_MEMORY.exists():
        return
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run([command, "-u", "-c=0"], timeout=ANSWERS_WITHIN_S, check=False)


def load() -> list[dict[str, Any]]:
    """Memory and use of each now; empty where they cannot be asked. Takes ANSWERS_WITHIN_S at most, and asks nothing
    while an earlier question still hangs in the driver."""
    own = {gpu.uuid for gpu in found().gpus}
    _hanging[:] = [asked for asked in _hanging if asked.poll() is None]
    if not own or _hanging:
        return []
    try:
        return [row for row in parsed_load(_ask(*_query(LOAD_FIELDS))) if row["uuid"] in own]
    except (Unanswered, FileNotFoundError):
        return []


def _query(fields: tuple[str, ...]) -> tuple[str, str]:
    return f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"


def _ask(*arguments: str) -> str:
    """Raises Unanswered, and FileNotFoundError where there is no such command.

    Its end is not waited for: a driver that hangs holds a killed process in the kernel."""
    command = shutil.which("nvidia-smi")
    if command is None:
        raise FileNotFoundError("nvidia-smi")
    asked = subprocess.Popen(
        [command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        said, _ = asked.communicate(timeout=ANSWERS_WITHIN_S)
    except subprocess.TimeoutExpired:
        asked.kill()
        if asked.stdout is not None:
            asked.stdout.close()
        with suppress(subprocess.TimeoutExpired):
            asked.wait(1)
        _hanging.append(asked)
        raise Unanswered(f"nvidia-smi did not answer within {ANSWERS_WITHIN_S:g} s.") from None
    if asked.returncode != 0:
        first = said.strip().partition("\n")[0][:300]
        raise Unanswered(first or f"nvidia-smi ended with status {asked.returncode}.")
    return said


def parsed(table: str, *, listing: str = "") -> tuple[tuple[Gpu, ...], str]:
    """The GPUs in the driver's order, and its version. `listing` is what `nvidia-smi -L` said, for MIG instances.

    Lines that are no row of FIELDS are passed over; what a GPU does not know is None."""
    instances = _instances(listing)
    gpus, driver = [], ""
    for uuid, name, capability, memory, version, mig in _rows(table, columns=len(FIELDS)):
        mib = _number(memory)
        gpus.append(
            Gpu(
                uuid=uuid,
                name=name,
                capability=capability if re.fullmatch(CAPABILITY, capability) else None,
                memory_bytes=None if mib is None else mib * MIB,
                mig=instances.get(uuid, {}) if mig == "Enabled" else None,
            )
        )
        driver = version
    return tuple(gpus), driver


def parsed_load(table: str) -> list[dict[str, Any]]:
    rows = _rows(table, columns=len(LOAD_FIELDS))
    return [
        {
            "uuid": uuid,
            "memory_used_bytes": None if (mib := _number(used)) is None else mib * MIB,
            "utilization_percent": _number(share),
        }
        for uuid, used, share in rows
    ]


def _rows(table: str, *, columns: int) -> list[list[str]]:
    rows = csv.reader(table.splitlines(), skipinitialspace=True, quoting=csv.QUOTE_NONE)
    cells = [[cell.strip() for cell in row] for row in rows]
    return [row for row in cells if len(row) == columns and row[0].startswith("GPU-")]


def _number(text: str) -> int | None:
    """None for `[N/A]`, `[Not Supported]`, `ERR!` and the like."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _instances(listing: str) -> dict[str, dict[str, str]]:
    """Profiles by MIG UUID by GPU UUID."""
    by_gpu: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in listing.splitlines():
        if gpu := re.match(r"GPU \d+: .*\(UUID: (GPU-[^)\s]+)\)", line):
            current = by_gpu.setdefault(gpu[1], {})
        elif instance := INSTANCE.search(line):
            current[instance["uuid"]] = instance["profile"]
    return by_gpu


def visible(gpus: tuple[Gpu, ...], wanted: str | None) -> tuple[Gpu, ...]:
    """Those that CUDA_VISIBLE_DEVICES lets a process see: by index, by the beginning of a UUID, or by a MIG instance,
    which is then the only one that its GPU has. As in CUDA, what comes after the first that does not exist is not seen,
    and none is seen twice."""
    if wanted is None:
        return gpus
    seen: list[Gpu] = []
    for token in wanted.split(","):
        gpu = _named(gpus, token.strip())
        if gpu is None:
            break
        if gpu not in seen:
            seen.append(gpu)
    return tuple(seen)


def _named(gpus: tuple[Gpu, ...], token: str) -> Gpu | None:
    index = _number(token)
    if index is not None:
        return gpus[index] if index < len(gpus) else None
    if token.startswith("MIG-"):
        return next(
            (replace(gpu, mig={token: gpu.mig[token]}) for gpu in gpus if gpu.mig and token in gpu.mig),
            next((gpu for gpu in gpus if gpu.uuid in token), None),
        )
    begins = [gpu for gpu in gpus if token.startswith("GPU-") and gpu.uuid.startswith(token)]
    return begins[0] if len(begins) == 1 else None
