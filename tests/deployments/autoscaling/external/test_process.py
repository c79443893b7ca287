"""`manage.py metrics_api` as it is started: with Redis, certificates and no database."""

import asyncio
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import aiohttp
import orjson
import pytest
from redis.asyncio import Redis

from controlplane.settings.environment import REPOSITORY
from deployments.telemetry.snapshot import write_signals
from tests.certificates import FRONT_PROXY, Authority
from tests.deployments.autoscaling.external.conftest import address_of, metrics_api
from tests.deployments.autoscaling.external.signals import labels, serving

pytestmark = pytest.mark.processes
METRIC = "/apis/external.metrics.k8s.io/v1beta1/namespaces/models/inference_queue_depth"


def _files(authority: Authority) -> dict[str, str]:
    pair = authority.serving("localhost", file="process")
    return {
        "SLIPWAY_METRICS_ADDRESS": "127.0.0.1:0",
        "SLIPWAY_METRICS_CERT": str(pair.certificate),
        "SLIPWAY_METRICS_KEY": str(pair.key),
        "SLIPWAY_METRICS_CLIENT_CA": str(authority.certificate),
        "SLIPWAY_METRICS_CLIENT_NAMES": FRONT_PROXY,
    }


async def test_it_serves_without_a_database_and_stops_when_told(
    redis: Redis, redis_url: str, authority: Authority, tmp_path: Path
) -> None:
    await write_signals(redis, [serving(1, depth=37.5)], labels={"d1": labels(1, "bert")})
    shown = authority.client(FRONT_PROXY)
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.load_cert_chain(shown.certificate, shown.key)
    with metrics_api(tmp_path, REDIS_URL=redis_url, **_files(authority)) as process:
        port = address_of(process).rpartition(":")[2]
        async with (
            asyncio.timeout(20),
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        ):
            while True:  # it listens before it has heard of Redis
                await write_signals(redis, [serving(1, depth=37.5)], labels={"d1": labels(1, "bert")})
                async with session.get(f"https://localhost:{port}{METRIC}") as answer:
                    document = orjson.loads(await answer.read())
                if answer.status != 503:
                    break
        assert [one["value"] for one in document["items"]] == ["37500m"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"SLIPWAY_METRICS_CERT": ""}, "metrics_api needs SLIPWAY_METRICS_ADDRESS"),
        ({"SLIPWAY_METRICS_CLIENT_CA": ""}, "Nobody could ask metrics_api"),
        ({"SLIPWAY_METRICS_CERT": "/nowhere/tls.crt"}, "metrics_api cannot listen on 127.0.0.1:0"),
    ],
)
def test_what_it_cannot_start_with_is_one_sentence(
    authority: Authority, tmp_path: Path, change: dict[str, str], sentence: str
) -> None:
    with metrics_api(tmp_path, **(_files(authority) | change)) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith(f"Slipway cannot start. {sentence}")


def test_the_server_itself_knows_no_django() -> None:
    code = (
        "import sys, deployments.autoscaling.external.server, deployments.autoscaling.external.listener;"
        "sys.exit(any(name.partition('.')[0] == 'django' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
