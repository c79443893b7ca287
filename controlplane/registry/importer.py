"""Fetches the models that people asked for by reference, a few at a time, in a process of its own.

It is the one process that speaks to registries elsewhere, so only it is given their tokens and needs a way out. A
download has no place in a web request, and none beside a measurement. What it fetches is looked at in the sandbox as
an upload is.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection

from controlplane.accounts.access import Actor
from controlplane.accounts.models import Role
from controlplane.core.errors import SlipwayError, Unavailable
from controlplane.registry import imports, services, sources
from controlplane.registry.models import Import

log = structlog.get_logger(__name__)

AT_ONCE = 2
POLL_S = 1.0
BEAT_S = 1.0
OURS = SlipwayError("error", "Slipway could not import this.", "Its log says why.")


class Stopped(Exception):
    """The process shall end."""


@dataclass(kw_only=True)
class Importer:
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Returns after `stopping` is set and every import was given back."""
        threads = [threading.Thread(target=self._loop, name=f"import-{number}") for number in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _loop(self) -> None:
        while not self.stopping.is_set():
            try:
                close_old_connections()
                row = imports.claim()
                if row is not None:
                    self.fetch(row)
                    continue
            except (OperationalError, InterfaceError) as error:  # the lease will run out
                log.warning("database_unavailable", cause=str(error).partition("\n")[0])
            self.stopping.wait(POLL_S)
        connection.close()

    def fetch(self, row: Import) -> None:
        """One try. Raises what the database raises, and nothing else."""
        try:
            self._fetch(row)
        except imports.Lost:
            log.info("import_lost", id=row.pk)
        except Stopped:
            imports.hand_back(row)
        except (OperationalError, InterfaceError):
            raise
        except SlipwayError as error:
            waits = imports.fail(row, error, again=isinstance(error, Unavailable))
            log.info("import_failed", id=row.pk, code=error.code, waits=waits)
        except Exception:
            log.exception("import_failed", id=row.pk)
            imports.fail(row, OURS)

    def _fetch(self, row: Import) -> None:
        reference = sources.parse(row.reference)
        found = sources.look(
            imports.remote(reference.source),
            reference,
            pinned=row.revision,
            limit_bytes=settings.ENVIRONMENT.max_upload_bytes,
            wall_s=settings.ENVIRONMENT.import_wall_s,
            asking=partial(imports.beat, row),
        )
        imports.beat(row, revision=found.revision, total_bytes=found.size_bytes)
        services.upload_version(
            Actor(team=row.model.team, role=Role.ENGINEER, user=row.created_by),
            row.model,
            chunks=self._told(row, found.chunks()),
            filename=found.filename,
            provenance=partial(_provenance, row, found),
            then=partial(imports.succeed, row),
        )

    def _told(self, row: Import, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks, with the import's progress written as they pass."""
        done, told_at = 0, time.monotonic()
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            if self.stopping.is_set():
                raise Stopped
            if time.monotonic() - told_at > BEAT_S:
                imports.beat(row, done_bytes=done)
                told_at = time.monotonic()
        imports.beat(row, done_bytes=done)


def _provenance(row: Import, found: sources.Found) -> dict[str, Any]:
    return {"imported": {"reference": row.reference, **found.provenance()}}
