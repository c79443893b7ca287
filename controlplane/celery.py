"""The Celery application. The profile is FAULTS.md's, and each line has a measured reason there.

A message carries one id and means "go and look"; state is in Postgres, so there is no result backend,
and redelivery, loss and duplication are all harmless.
"""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

from django.conf import settings

HARD_LIMIT_S = 2 * 3600

app = Celery("slipway")
app.conf.update(
    broker_url=settings.ENVIRONMENT.redis_url,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": 2 * (HARD_LIMIT_S + 60),
        "socket_timeout": 5,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "global_keyprefix": "slipway:",
    },
    task_acks_late=True,
    task_reject_on_worker_lost=False,
    task_ignore_result=True,
    task_publish_retry=False,
    task_serializer="json",
    accept_content=["json"],
    task_soft_time_limit=HARD_LIMIT_S,
    task_time_limit=HARD_LIMIT_S + 60,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_soft_shutdown_timeout=5,
    worker_enable_soft_shutdown_on_idle=False,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    task_default_queue="optimize.cpu",
    enable_utc=True,
)
app.autodiscover_tasks()
