"""Jobs, searches, techniques and workers as the API says them."""

import math
from datetime import datetime

from optimizer import fleet, shortlist
from optimizer.api import schemas
from optimizer.domain.search import Range
from optimizer.ledger import Cell, Column, Line
from optimizer.models import Job, JobEvent, Search, Worker


def job(row: Job) -> schemas.Job:
    return {
        "id": row.pk,
        "state": row.state,
        "reason": row.reason or None,
        "message": row.message,
        "model": row.version.model.name,
        "version": row.version.number,
        "parent": row.parent.number,
        "recipe": row.recipe,
        "measures": row.measures.number if row.measures else None,
        "queue": row.queue,
        "priority": row.priority_word,
        "attempt": row.attempt,
        "max_attempts": row.max_attempts,
        "step": {
            "name": row.step,
            "index": row.step_index,
            "of": row.step_count,
            "done": row.progress_done,
            "total": row.progress_total,
        },
        "retry_of": row.retry_of_id,
        "search": row.search_id,
        "created_by": str(row.created_by) if row.created_by else None,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "url": f"/api/v1/jobs/{row.pk}/",
        "page": row.get_absolute_url(),
    }


def ledger_line(line: Line) -> schemas.LedgerLine:
    return {
        "version": line.version.number,
        "cells": [_cell(column, cell) for column, cell in sorted(line.cells.items())],
    }


def _cell(column: Column, cell: Cell) -> schemas.LedgerCell:
    return {
        "technique": column.technique,
        "precision": column.precision,
        "software": column.software,
        "hardware": column.hardware or None,
        "variant": cell.variant.number,
        "verdict": cell.variant.verdict,
        "sentence": cell.report.sentence if cell.report else "",
        "stale": list(cell.stale),
        "earlier": cell.earlier,
        "url": f"/api/v1{cell.variant.get_absolute_url()}",
    }


def search(row: Search) -> schemas.Search:
    return {
        "id": row.pk,
        "state": row.state,
        "message": row.message,
        "model": row.version.model.name,
        "version": row.version.number,
        "parent": row.parent.number,
        "recipes": len(row.plan),
        "gpu": row.gpu or None,
        "max_jobs": row.max_jobs,
        "max_minutes": row.max_minutes,
        "created_by": str(row.created_by) if row.created_by else None,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
        "url": f"/api/v1/searches/{row.pk}/",
        "page": row.get_absolute_url(),
    }


def searched(row: shortlist.Row) -> schemas.SearchedRecipe:
    return {
        "recipe": row.recipe.to_json(),  # type: ignore[typeddict-item]
        "state": row.state,
        "note": row.note,
        "job": row.job.pk if row.job else None,
        "variant": f"/api/v1{row.variant.get_absolute_url()}" if row.variant else None,
        "points": [
            {
                "batch_size": shown.point.batch_size,
                "speedup": _measured(shown.point.speedup),
                "loss": _measured(shown.point.loss),
                "size_bytes": shown.point.size_bytes,
                "on_front": shown.on_front,
            }
            for shown in row.points
        ],
    }


def _measured(found: Range) -> schemas.Measured:
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high if math.isfinite(found.high) else None,
    }


def event(row: JobEvent) -> schemas.JobEvent:
    return {
        "id": row.pk,
        "at": row.at,
        "attempt": row.attempt,
        "kind": row.kind,
        "level": row.level,
        "message": row.message,
        "data": row.data,
    }


def worker(row: Worker, *, now: datetime) -> schemas.Worker:
    return {
        "id": row.pk,
        "name": row.name,
        "state": fleet.worker_state(row, now=now),
        "queues": row.queues,
        "hardware": row.hardware,
        "versions": row.versions,
        "load": row.load,
        "busy": row.current_job_id is not None,
        "draining": row.draining,
        "drain_since": row.drain_since,
        "started_at": row.started_at,
        "heartbeat_at": row.heartbeat_at,
    }
