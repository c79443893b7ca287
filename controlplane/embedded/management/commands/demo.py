"""`manage.py demo`: `up`, with the demo's content and a bounded load on it."""

import os
from typing import Any

from django.core.management.base import BaseCommand

from controlplane.embedded import up
from controlplane.embedded.errors import SetupError
from controlplane.embedded.preflight import wanted
from controlplane.embedded.processes import PREPARE, Container, Process, Site, Tier
from controlplane.embedded.spawn import INSTALLATION


def content(site: Site) -> Process:
    return Process(
        name="demo",
        argv=(site.python, "manage.py", "demo_content"),
        tier=Tier.WORK,
        reads=INSTALLATION,
        container=Container(image="web"),
    )


class Command(BaseCommand):
    help = "Run everything and take a pretrained model down the whole line. Ctrl-C stops it all."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            up.run(wanted(os.environ), prepare=(*PREPARE, "--admin"), afterwards=content)
        except SetupError as error:
            raise SystemExit(f"Slipway cannot start. {error.title}") from error
