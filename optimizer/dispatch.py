"""The optimizer's duties: publish queued jobs, take back expired ones, forget workers that are gone."""

from datetime import timedelta

import structlog
from celery import current_app
from django.db.models import F, Q
from django.db.models.functions import Now
from kombu.exceptions import OperationalError as BrokerError

from controlplane.core.dispatcher import Duty
from optimizer.domain.jobs import JobState
from optimizer.models import Job, Worker
from optimizer.tasks import RUN_JOB
from optimizer.transitions import reap_expired

log = structlog.get_logger(__name__)

BATCH = 200
REPUBLISH_AFTER = timedelta(minutes=5)
REPUBLISH_LOST_AFTER = timedelta(seconds=5)
FORGET_WORKER_AFTER = timedelta(hours=24)


def publish_jobs() -> int:
    """Sends a message for each due queued row that has none. Sent, then stamped: a crash between the two
    repeats a message and loses none. Returns how many were sent."""
    due = Job.objects.filter(
        Q(published_at=None) | Q(published_at__lt=Now() - REPUBLISH_AFTER),
        state=JobState.QUEUED,
        run_after__lte=Now(),
    )
    sent = 0
    for job_id, queue in due.order_by("run_after").values_list("pk", "queue")[:BATCH]:
        try:
            current_app.send_task(RUN_JOB, args=[job_id], queue=queue, retry=False)
        except (BrokerError, OSError) as error:
            log.warning("broker_unavailable", cause=str(error).splitlines()[0], waiting=due.count())
            break
        stamped = Job.objects.filter(pk=job_id, state=JobState.QUEUED)
        stamped.update(published_at=Now(), publish_count=F("publish_count") + 1)
        sent += 1
    return sent


def republish_lost_jobs() -> int:
    """Sends again what the broker forgot: rows published some seconds ago while their queue is empty."""
    stale = Job.objects.filter(state=JobState.QUEUED, published_at__lt=Now() - REPUBLISH_LOST_AFTER)
    lost = [queue for queue in set(stale.values_list("queue", flat=True)) if _waiting_messages(queue) == 0]
    return stale.filter(queue__in=lost).update(published_at=None) if lost else 0


def _waiting_messages(queue: str) -> int | None:
    """Messages that wait in the broker; None while it cannot be asked."""
    try:
        with current_app.connection_for_write() as connection:
            return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
    except connection.channel_errors:  # the queue does not exist: nothing waits in it
        return 0
    except (BrokerError, OSError):
        return None


def forget_workers() -> int:
    removed, _ = Worker.objects.filter(heartbeat_at__lt=Now() - FORGET_WORKER_AFTER).delete()
    return removed


DUTIES = (
    Duty(name="publish jobs", run=publish_jobs, every_s=1, woken=True),
    Duty(name="republish lost jobs", run=republish_lost_jobs, every_s=3),
    Duty(name="take back expired jobs", run=reap_expired, every_s=1),
    Duty(name="forget workers", run=forget_workers, every_s=600),
)
