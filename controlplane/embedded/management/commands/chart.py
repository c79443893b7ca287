"""`manage.py chart`: write what the Helm chart knows of the processes from their table."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from controlplane.embedded import chart


class Command(BaseCommand):
    help = f"Write {chart.FOLDER}/processes.yaml from the process table."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        (settings.BASE_DIR / chart.FOLDER / "processes.yaml").write_text(chart.text())
