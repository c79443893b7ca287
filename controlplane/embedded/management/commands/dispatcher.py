"""`manage.py dispatcher`: the duties of every app, put together. See `controlplane.core.dispatcher`."""

import signal
from typing import Any

from django.core.management.base import BaseCommand

import controlplane.celery
import controlplane.registry.dispatch
import deployments.dispatch
import optimizer.dispatch
from controlplane.core.dispatcher import Dispatcher

DUTIES = (
    *optimizer.dispatch.DUTIES,
    *deployments.dispatch.DUTIES,
    *controlplane.registry.dispatch.DUTIES,
)


class Command(BaseCommand):
    help = (
        "Publishes due rows, takes back expired leases, resyncs rollouts and cleans up. Safe in two copies."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        dispatcher = Dispatcher(duties=DUTIES)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: dispatcher.stop())
        dispatcher.run()
