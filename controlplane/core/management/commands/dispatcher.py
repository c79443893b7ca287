"""`manage.py dispatcher`: see `controlplane.core.dispatcher`."""

import signal
from typing import Any

from django.core.management.base import BaseCommand

from controlplane.core.dispatcher import Dispatcher, duties


class Command(BaseCommand):
    help = "Publishes due rows, takes back expired leases, resyncs rollouts and cleans up. Safe in two copies."

    def handle(self, *args: Any, **options: Any) -> None:
        dispatcher = Dispatcher(duties=duties())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: dispatcher.stop())
        dispatcher.run()
