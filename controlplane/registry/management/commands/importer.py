"""`manage.py importer`: see `controlplane.registry.importer`."""

import signal
from typing import Any

from django.core.management.base import BaseCommand

from controlplane.registry.importer import Importer


class Command(BaseCommand):
    help = "Fetches the models that people asked for by reference. Safe in two copies."
    requires_system_checks = ()  # `prepare` checks the installation, once for all

    def handle(self, *args: Any, **options: Any) -> None:
        importer = Importer()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: importer.stopping.set())
        importer.run()
