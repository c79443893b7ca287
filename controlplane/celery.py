"""The Celery application. The profile is FAULTS.md's, and each line has a measured reason there.

A message carries one id and means "go and look"; state is in Postgres, so there is no result backend,
and redelivery, loss and duplication are all harmless.
"""

import gc
import os
from typing import Any

from celery import Celery
from celery.signals import task_postrun, task_prerun, worker_before_create_process
from django.db import close_old_connections
from kombu.connection import Connection
from kombu.transport import redis

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

from django.conf import settings

from controlplane.core import stopping  # noqa: F401  listens to the signals of every worker
from optimizer.domain.jobs import longest_attempt_s

SOFT_LIMIT_S = longest_attempt_s(technique_wall_s=settings.ENVIRONMENT.technique_wall_s)
"""The last resort: a job's supervisor holds the limit of each step, and says which one it was."""
HARD_LIMIT_S = SOFT_LIMIT_S + 60

LONGEST_PAUSE_S = 3.0


class Acknowledgements(redis.QoS):
    """A message that could not be acknowledged counts as being worked on until the worker connects anew. Celery logs
    the failure and goes on, so that a worker which takes one message at a time would take no other; only a broken pipe
    makes it connect."""

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]
        except self.channel.connection_errors as error:
            raise BrokenPipeError("a message could not be acknowledged") from error


class Channel(redis.Channel):
    QoS = Acknowledgements


class Transport(redis.Transport):
    Channel = Channel


class Broker(Connection):
    """Is back seconds after the broker is; by itself a worker's pause between two tries grows to half a minute."""

    def get_transport_cls(self) -> Any:
        found = super().get_transport_cls()  # type: ignore[no-untyped-call]
        return Transport if found is redis.Transport else found

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        wanted: dict[str, Any] = {"interval_max": LONGEST_PAUSE_S} | kwargs
        return super().ensure_connection(*args, **wanted)  # type: ignore[no-untyped-call]


app = Celery("slipway")
app.amqp.Connection = Broker
app.conf.update(
    broker_url=settings.ENVIRONMENT.redis_url,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": 2 * HARD_LIMIT_S,
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
    task_soft_time_limit=SOFT_LIMIT_S,
    task_time_limit=HARD_LIMIT_S,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_soft_shutdown_timeout=0,  # `controlplane.core.stopping` is ours, see docs/adr/0006
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    task_default_queue="optimize.cpu",
    enable_utc=True,
    # By itself Celery connects anew for each task, which costs 5 ms and then the planning of every query.
    CELERY_DB_REUSE_MAX=1_000_000,
)
app.autodiscover_tasks()


@task_prerun.connect
@task_postrun.connect
def look_at_connections(sender: Any, **_: Any) -> None:
    """As Django does around a request: one that is old or broke is closed, one that stays is asked before its use. A
    task that is called like a function leaves its caller's alone."""
    if not sender.request.is_eager:
        close_old_connections()


@worker_before_create_process.connect
def keep_imports_out_of_collections(**_: Any) -> None:
    """What was imported stays; walking through it would cost each process most of a second at its end."""
    gc.freeze()
