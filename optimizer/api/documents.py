"""Jobs, techniques and workers as the API says them."""

from optimizer.api import schemas
from optimizer.models import Job, JobEvent, Worker


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
        "queue": row.queue,
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
        "created_by": str(row.created_by) if row.created_by else None,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "url": f"/api/v1/jobs/{row.pk}/",
        "page": row.get_absolute_url(),
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


def worker(row: Worker) -> schemas.Worker:
    return {
        "name": row.name,
        "queues": row.queues,
        "hardware": row.hardware,
        "versions": row.versions,
        "load": row.load,
        "busy": row.current_job_id is not None,
        "draining": row.draining,
        "started_at": row.started_at,
        "heartbeat_at": row.heartbeat_at,
    }
