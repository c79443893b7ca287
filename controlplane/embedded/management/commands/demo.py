"""`manage.py demo`: `up`, with the demo's content and a bounded load on it."""

import os
from dataclasses import replace
from typing import Any

from django.core.management.base import BaseCommand

from controlplane.embedded import up
from controlplane.embedded.errors import SetupError
from controlplane.embedded.preflight import wanted
from controlplane.embedded.processes import Container, Process, Site, Tier, table
from controlplane.embedded.spawn import INSTALLATION


def content(site: Site) -> Process:
    return Process(
        name="demo",
        argv=(site.python, "manage.py", "demo_content"),
        tier=Tier.WORK,
        reads=INSTALLATION,
        container=Container(image="web"),
    )


def rows(site: Site) -> tuple[Process, ...]:
    """The table, and what sends the load that the demo asks for."""
    return (*table(site), replace(content(site), name="load", argv=(site.python, "manage.py", "load")))


class Command(BaseCommand):
    help = "Run everything and take a pretrained model down the whole line. Ctrl-C stops it all."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            up.run(wanted(os.environ), rows=rows, afterwards=content)
        except SetupError as error:
            raise SystemExit(f"Slipway cannot start. {error.title}") from error
