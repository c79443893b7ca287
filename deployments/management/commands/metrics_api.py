"""`manage.py metrics_api`: see `deployments.autoscaling.external`. It never asks the database."""

import asyncio
import gc
import signal
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web
from django.conf import settings
from django.core.management.base import BaseCommand
from redis.asyncio import Redis

from controlplane.settings.environment import Environment, refusal
from deployments.autoscaling.external.book import Book
from deployments.autoscaling.external.listener import Certificates, Listener
from deployments.autoscaling.external.server import KEEP_ALIVE_S, Access, application

log = structlog.get_logger(__name__)

STOP_WITHIN_S = 1.0


def listener(environment: Environment, runner: web.AppRunner) -> Listener:
    """As the environment asks for it. Raises SystemExit with a sentence."""
    if not (environment.metrics_address and environment.metrics_cert and environment.metrics_key):
        raise refusal(
            "metrics_api needs SLIPWAY_METRICS_ADDRESS, SLIPWAY_METRICS_CERT and SLIPWAY_METRICS_KEY."
        )
    if not (environment.metrics_client_ca or environment.keda_token):
        raise refusal(
            "Nobody could ask metrics_api: set SLIPWAY_METRICS_CLIENT_CA to the cluster's front-proxy CA, "
            "or SLIPWAY_KEDA_TOKEN for KEDA."
        )
    host, _, port = environment.metrics_address.rpartition(":")
    client_ca = environment.metrics_client_ca
    return Listener(
        runner=runner,
        certificates=Certificates(
            certificate=Path(environment.metrics_cert),
            key=Path(environment.metrics_key),
            client_ca=Path(client_ca) if client_ca else None,
        ),
        host=host.strip("[]"),
        port=int(port),
    )


async def serve(environment: Environment) -> None:
    """Until SIGTERM or SIGINT. Raises SystemExit where it cannot listen."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    redis = Redis.from_url(environment.redis_url, socket_timeout=2, socket_connect_timeout=0.5)
    book = Book(redis=redis)
    access = Access(client_names=environment.metrics_client_names, keda_token=environment.keda_token)
    runner = web.AppRunner(
        application(book, access=access),
        access_log=None,
        keepalive_timeout=KEEP_ALIVE_S,
        shutdown_timeout=STOP_WITHIN_S,
    )
    await runner.setup()
    port = listener(environment, runner)
    try:
        await port.open()
    except OSError as error:
        raise refusal(f"metrics_api cannot listen on {environment.metrics_address}: {error}.") from error
    # What is loaded stays: looking through it for garbage would hold up answers for 50 ms now and then.
    gc.collect()
    gc.freeze()
    log.info("listening", address=f"{port.host}:{port.port}")
    tasks = [asyncio.create_task(work) for work in (book.follow(), port.watch())]
    stopped = asyncio.create_task(stopping.wait())
    ended, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopped, *tasks):
        task.cancel()
    await asyncio.gather(stopped, *tasks, return_exceptions=True)
    await port.close()
    await runner.cleanup()
    await redis.aclose()
    for task in ended - {stopped}:
        task.result()  # a fault of ours: whoever started this starts it again


class Command(BaseCommand):
    help = "Serves external.metrics.k8s.io and KEDA from the latest signals."
    requires_system_checks = ()  # it must start without a database

    def handle(self, *args: Any, **options: Any) -> None:
        asyncio.run(serve(settings.ENVIRONMENT))
