"""What Celery messages mean: go and look at this deployment."""

from celery import shared_task

from deployments import reconciler

RECONCILE = "deployments.reconcile"


@shared_task(name=RECONCILE, time_limit=60, soft_time_limit=50)
def reconcile(deployment_id: int) -> None:
    reconciler.reconcile(deployment_id)
