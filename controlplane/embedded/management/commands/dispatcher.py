"""`manage.py dispatcher`: the duties of every app, put together. See `controlplane.core.dispatcher`."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

import controlplane.accounts.dispatch
import controlplane.celery
import controlplane.registry.dispatch
import deployments.dispatch
import optimizer.dispatch
from controlplane.core.dispatcher import Dispatcher

DUTIES = (
    *optimizer.dispatch.DUTIES,
    *deployments.dispatch.DUTIES,
    *controlplane.registry.dispatch.DUTIES,
    *controlplane.accounts.dispatch.DUTIES,
)


class Command(BaseCommand):
    help = (
        "Publishes due rows, takes back expired leases, resyncs rollouts and cleans up. Safe in two copies."
    )
    requires_system_checks = ()  # `prepare` checks the installation, once for all

    def handle(self, *args: Any, **options: Any) -> None:
        dispatcher = Dispatcher(duties=DUTIES)
        for number in (signal.SIGTERM, signal.SIGINT):
            # In a thread: the handler interrupts this one, which may hold the lock of the event that is to be set.
            signal.signal(number, lambda *_: threading.Thread(target=dispatcher.stop).start())
        dispatcher.run()
