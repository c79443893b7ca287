"""`manage.py compose`: write docker-compose.yml and the edge's configuration from the process table."""

import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from controlplane.embedded import compose


class Command(BaseCommand):
    help = "Write docker-compose.yml and install/edge.json from the process table."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        (settings.BASE_DIR / "docker-compose.yml").write_text(compose.text())
        (settings.BASE_DIR / "install" / "edge.json").write_text(
            json.dumps(compose.edge_config(), indent=1) + "\n"
        )
