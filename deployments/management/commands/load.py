"""`manage.py load`: see `deployments.load`."""

import asyncio
import signal
from typing import Any

from django.core.management.base import BaseCommand

from deployments.load import Loads


async def send() -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await Loads().run(stopping)


class Command(BaseCommand):
    help = "Send the bounded demo load that people ask for on their deployments."
    requires_system_checks = ()  # `prepare` checks the installation, once for all

    def handle(self, *args: Any, **options: Any) -> None:
        asyncio.run(send())
