"""The deployments' duties: send the reconciler where it is due, and forget old history."""

from datetime import timedelta

import structlog
from celery import current_app
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from controlplane.core.bus import Due
from controlplane.core.dispatcher import Duty
from deployments.models import Decision, Deployment, ReplicaLife
from deployments.tasks import RECONCILE
from deployments.telemetry import store

log = structlog.get_logger(__name__)

BATCH = 500
REPUBLISH_AFTER = timedelta(seconds=5)
KEEP_DECISIONS = timedelta(days=365)
KEEP_HOLDS = timedelta(days=1)
KEEP_LIVES = timedelta(days=7)
QUEUE = "rollouts"


def publish_reconciles() -> int:
    """Sends one message per deployment that is due and has none on its way. Returns how many."""
    due = Deployment.objects.filter(
        Q(published_at=None)
        | Q(published_at__lt=F("reconcile_after"))
        | Q(published_at__lt=Now() - REPUBLISH_AFTER),
        reconcile_after__lte=Now(),
    )
    sent = 0
    for deployment_id in due.order_by("reconcile_after").values_list("pk", flat=True)[:BATCH]:
        try:
            current_app.send_task(RECONCILE, args=[deployment_id], queue=QUEUE, retry=False)
        except (BrokerError, OSError) as error:
            log.warning("broker_unavailable", cause=str(error).splitlines()[0])
            break
        Deployment.objects.filter(pk=deployment_id).update(published_at=Now())
        sent += 1
    return sent


def forget_decisions() -> int:
    """Changes are kept longer than holds."""
    holds = Q(last_at__lt=Now() - KEEP_HOLDS, desired_replicas=F("current_replicas"))
    removed, _ = Decision.objects.filter(holds | Q(last_at__lt=Now() - KEEP_DECISIONS)).delete()
    return removed


def forget_lives() -> int:
    """Of replicas that are gone."""
    removed, _ = ReplicaLife.objects.filter(gone_at__lt=Now() - KEEP_LIVES).delete()
    return removed


def keep_history() -> None:
    now = timezone.now()
    store.lengthen(now)
    store.forget(now)


DUTIES = (
    Duty(name="publish reconciles", run=publish_reconciles, every_s=0.25, woken_by=Due.RECONCILES),
    Duty(name="keep history", run=keep_history, every_s=30),
    Duty(name="forget decisions", run=forget_decisions, every_s=3600),
    Duty(name="forget lives", run=forget_lives, every_s=3600),
)
