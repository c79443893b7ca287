"""`manage.py compose`: write docker-compose.yml and the edge's configuration from the process table."""

import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from controlplane.embedded import compose


class Command(BaseCommand):
    help = "Write docker-compose.yml and install/edge.json from the process table."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--gpus",
            nargs="+",
            default=compose.FIRST_GPU,
            metavar="GPU",
            help="those that get a worker each in the profile “gpu”: indices, or UUIDs of GPUs and MIG instances",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        (settings.BASE_DIR / "docker-compose.yml").write_text(compose.text(options["gpus"]))
        (settings.BASE_DIR / "install" / "edge.json").write_text(
            json.dumps(compose.edge_config(), indent=1) + "\n"
        )
