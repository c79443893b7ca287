"""The node's memory: files that a restarted node finds everything in again.

    node/desired/<key>.json            the wish
    node/fences/<key>.json             the last generation of a deployment that was deleted
    node/replicas/<key>/<name>/        record.json, config.json (0600), log, log.old

Each file is replaced as a whole by a rename. Wishes are flushed to the disk before they are acknowledged;
records are not, because what they say is checked against the living process anyway. Refused: a database.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from controlplane.core.errors import InvalidInput, StorageFull
from deployments.domain.wire import Document
from deployments.domain.workload import DesiredDeployment, ReplicaState, Workload

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Record(Document):
    """What must be known to adopt a replica. `pid` and `ticks` name its process, where it has one.

    `reason` says why it is not ready now, `ended` why its last process ended.
    """

    key: str
    name: str
    workload: Workload
    port: int
    pid: int | None
    ticks: int
    state: ReplicaState
    restarts: int
    crashes: int
    started_at: datetime
    ready_at: datetime | None
    reason: str
    ended: str
    log_tail: tuple[str, ...]


def write(path: Path, document: Mapping[str, Any], *, flush: bool = False) -> None:
    """Replaces the file as a whole; readable by its owner alone."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(document, file, separators=(",", ":"))
        if flush:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


class StateFiles:
    def __init__(self, folder: Path) -> None:
        self._desired = folder / "desired"
        self._fences = folder / "fences"
        self.replicas = folder / "replicas"
        for inner in (self._desired, self._fences, self.replicas):
            inner.mkdir(parents=True, exist_ok=True, mode=0o700)

    def desired(self) -> dict[str, DesiredDeployment]:
        """Raises SystemExit for a wish that this version cannot read: guessing would stop its replicas."""
        found: dict[str, DesiredDeployment] = {}
        for path in sorted(self._desired.glob("*.json")):
            try:
                wish = DesiredDeployment.from_json(json.loads(path.read_bytes()))
            except (ValueError, InvalidInput) as error:
                raise SystemExit(
                    f"{path} cannot be read: {error}. Move it away, or run the newer version."
                ) from error
            found[wish.key] = wish
        return found

    def fences(self) -> dict[str, int]:
        paths = self._fences.glob("*.json")
        return {path.stem: int(json.loads(path.read_bytes())["generation"]) for path in paths}

    def save_desired(self, wish: DesiredDeployment) -> None:
        """Raises StorageFull when the disk has no room."""
        self._write_through(self._desired / f"{wish.key}.json", wish.to_json())

    def remove_desired(self, key: str, *, generation: int) -> None:
        self._write_through(self._fences / f"{key}.json", {"generation": generation})
        (self._desired / f"{key}.json").unlink(missing_ok=True)

    def folder(self, key: str, name: str) -> Path:
        return self.replicas / key / name

    def records(self) -> list[Record]:
        """The replicas that were known; one whose record cannot be read is left to the sweep of strays."""
        found = []
        for path in sorted(self.replicas.glob("*/*/record.json")):
            try:
                found.append(Record.from_json(json.loads(path.read_bytes())))
            except (OSError, ValueError, InvalidInput) as error:
                _log.warning("%s cannot be read (%s); the replica is replaced", path, error)
        return found

    def save_record(self, record: Record) -> None:
        """A full disk must not take a serving replica down, so a failed write is only logged."""
        try:
            write(self.folder(record.key, record.name) / "record.json", record.to_json())
        except OSError as error:
            _log.warning("the record of replica %s of %s was not written: %s", record.name, record.key, error)

    def forget_replica(self, key: str, name: str) -> None:
        shutil.rmtree(self.folder(key, name), ignore_errors=True)

    @staticmethod
    def _write_through(path: Path, document: Mapping[str, Any]) -> None:
        try:
            write(path, document, flush=True)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StorageFull("node_disk_full", "The node's disk is full.", "Nothing was changed.") from error
