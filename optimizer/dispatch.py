"""The optimizer's duties: publish queued jobs, take back expired ones, carry searches on, tell of silent workers and
forget them."""

from datetime import timedelta

import structlog
from celery import current_app
from django.db.models import F, Q
from django.db.models.functions import Now
from kombu.exceptions import OperationalError as BrokerError

from controlplane.core import bus
from controlplane.core.dispatcher import Duty
from optimizer import line
from optimizer.domain.jobs import JobState
from optimizer.fleet import OFFLINE_AFTER
from optimizer.line import SILENT_AFTER
from optimizer.models import Job, Worker
from optimizer.searches import advance_all
from optimizer.tasks import RUN_JOB
from optimizer.transitions import reap_expired

log = structlog.get_logger(__name__)

BATCH = 200
REPUBLISH_LOST_AFTER = timedelta(seconds=5)
FORGET_WORKER_AFTER = timedelta(hours=24)
LOOK_FOR_SILENCE = timedelta(seconds=2)


def publish_jobs() -> int:
    """Sends messages for due queued rows that have none, as many as workers can take soon: the rest stays in the line,
    where priority and fairness can still choose. Sent, then stamped: a crash between the two repeats a message and
    loses none. Returns how many were sent."""
    waiting = line.waiting(limit_each=BATCH)
    if not waiting:
        return 0
    sent = 0
    for one in line.next_of(waiting):
        try:
            current_app.send_task(RUN_JOB, args=[one.job_id], queue=one.queue, retry=False)
        except (BrokerError, OSError) as error:
            log.warning("broker_unavailable", cause=str(error).splitlines()[0], waiting=len(waiting))
            break
        stamped = Job.objects.filter(pk=one.job_id, state=JobState.QUEUED)
        stamped.update(published_at=Now(), publish_count=F("publish_count") + 1)
        sent += 1
    return sent


def republish_lost_jobs() -> int:
    """Sends again what the broker forgot: rows published some seconds ago while their queue is empty."""
    stale = Job.objects.filter(state=JobState.QUEUED, published_at__lt=Now() - REPUBLISH_LOST_AFTER)
    lost = [queue for queue in set(stale.values_list("queue", flat=True)) if _waiting_messages(queue) == 0]
    return stale.filter(queue__in=lost).update(published_at=None) if lost else 0


def _waiting_messages(queue: str) -> int | None:
    """Messages that wait in the broker; None while it cannot be asked. Declared, because a passive look finds no queue
    of Redis under a key prefix (kombu 5.7 looks without the prefix)."""
    try:
        with current_app.connection_for_write() as connection:
            return int(connection.default_channel.queue_declare(queue).message_count)
    except (BrokerError, OSError):
        return None


def tell_of_silent_workers() -> bool:
    """Nobody who falls silent says so: open pages are told when a worker's age passes a bound of its state.

    Returns whether they were. Looks overlap, so that a late one misses nothing; told twice is asked twice.
    """
    passed = Q()
    for bound in (SILENT_AFTER, OFFLINE_AFTER):
        passed |= Q(heartbeat_at__lt=Now() - bound, heartbeat_at__gte=Now() - bound - 2 * LOOK_FOR_SILENCE)
    if not Worker.objects.filter(passed).exists():
        return False
    bus.publish("workers", team_id=None)
    return True


def forget_workers() -> int:
    """But for drained ones: they would come back as if nobody had drained them."""
    gone = Worker.objects.filter(heartbeat_at__lt=Now() - FORGET_WORKER_AFTER, drain_since=None)
    removed, _ = gone.delete()
    if removed:
        bus.publish("workers", team_id=None)
    return removed


DUTIES = (
    Duty(name="publish jobs", run=publish_jobs, every_s=1, woken_by=bus.Due.JOBS),
    Duty(name="republish lost jobs", run=republish_lost_jobs, every_s=3),
    Duty(name="take back expired jobs", run=reap_expired, every_s=1),
    Duty(name="carry searches on", run=advance_all, every_s=1, woken_by=bus.Due.SEARCHES),
    Duty(name="tell of silent workers", run=tell_of_silent_workers, every_s=LOOK_FOR_SILENCE.total_seconds()),
    Duty(name="forget workers", run=forget_workers, every_s=600),
)
