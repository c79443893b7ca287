"""`manage.py up`: run every process of Slipway on this machine, behind one address."""

import os
from typing import Any

from django.core.management.base import BaseCommand

from controlplane.embedded import up
from controlplane.embedded.errors import SetupError
from controlplane.embedded.preflight import wanted
from controlplane.embedded.processes import with_sender


class Command(BaseCommand):
    help = "Run every process of Slipway on this machine, behind one address. Ctrl-C stops them all."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            up.run(wanted(os.environ), rows=with_sender)
        except SetupError as error:
            raise SystemExit(f"Slipway cannot start. {error.title}") from error
