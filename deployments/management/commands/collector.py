"""`manage.py collector`: see `deployments.collector`."""

import asyncio
import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from redis.asyncio import Redis

from deployments.collector import Collector


async def collect() -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    redis = Redis.from_url(settings.ENVIRONMENT.redis_url, socket_timeout=0.5, socket_connect_timeout=0.5)
    try:
        await Collector(redis=redis).run(stopping)
    finally:
        await redis.aclose()


class Command(BaseCommand):
    help = "Scrapes replicas, keeps signals and windows, and runs the local autoscaler."
    requires_system_checks = ()  # `prepare` checks the installation, once for all

    def handle(self, *args: Any, **options: Any) -> None:
        asyncio.run(collect())
