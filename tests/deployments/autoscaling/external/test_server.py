"""The API as a cluster and KEDA ask it: over TLS, with certificates, against signals in a real Redis."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from redis.asyncio import Redis

from deployments.autoscaling.external.book import Book
from deployments.autoscaling.external.listener import Certificates, Listener
from deployments.autoscaling.external.server import Access, application
from deployments.domain.hpa.quantity import Quantity
from deployments.telemetry.signals import SignalError, SignalName
from deployments.telemetry.snapshot import write_signals
from tests.certificates import FRONT_PROXY, SERVING, Authority, Pair
from tests.deployments.autoscaling.external.signals import labels, measured, of, serving

ROOT = "/apis/external.metrics.k8s.io"
DEPTH = f"{ROOT}/v1beta1/namespaces/models/inference_queue_depth"
TOKEN = "for-keda"
PROTOBUF = "application/vnd.kubernetes.protobuf"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class _Here(AbstractResolver):
    """Every name is on this machine, as a Service's is in its cluster."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        return None


@dataclass(kw_only=True)
class Answer:
    status: int
    content_type: str
    body: bytes
    headers: Any

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def items(self) -> dict[str, str]:
        return {one["metricLabels"]["deployment"]: one["value"] for one in self.json["items"]}


@dataclass(kw_only=True)
class Client:
    """Of whoever holds `shows`, if anything; it trusts the authority of the serving certificate."""

    port: int
    trusts: Path
    shows: Pair | None

    async def get(self, path: str, *, method: str = "GET", **headers: str) -> Answer:
        context = ssl.create_default_context(cafile=str(self.trusts))
        if self.shows is not None:
            context.load_cert_chain(self.shows.certificate, self.shows.key)
        connector = aiohttp.TCPConnector(ssl=context, resolver=_Here())
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"https://{SERVING}:{self.port}{path}", headers=named) as answer,
        ):
            return Answer(
                status=answer.status,
                content_type=answer.content_type,
                body=await answer.read(),
                headers=answer.headers,
            )

    async def ask(self, selector: str = "", *, metric: str = SignalName.QUEUE_DEPTH) -> Answer:
        path = f"{ROOT}/v1beta1/namespaces/models/{metric}"
        return await self.get(f"{path}?labelSelector={selector}" if selector else path)


@dataclass(kw_only=True)
class Served:
    redis: Redis
    book: Book
    listener: Listener
    authority: Authority

    def client(self, shows: Pair | None) -> Client:
        return Client(port=self.listener.port, trusts=self.authority.certificate, shows=shows)

    @property
    def cluster(self) -> Client:
        return self.client(self.authority.client(FRONT_PROXY))

    @property
    def nobody(self) -> Client:
        return self.client(None)

    async def write(self, **depths: float) -> None:
        numbered = list(enumerate(depths.items(), start=1))
        await write_signals(
            self.redis,
            [serving(number, depth=depth) for number, (_, depth) in numbered],
            labels={f"d{number}": labels(number, name) for number, (name, _) in numbered},
        )
        await self.book.refresh()


@asynccontextmanager
async def _serving(redis: Redis, authority: Authority, pair: Pair, access: Access) -> AsyncIterator[Served]:
    book = Book(redis=redis)
    runner = web.AppRunner(application(book, access=access), access_log=None)
    await runner.setup()
    certificates = Certificates(certificate=pair.certificate, key=pair.key, client_ca=authority.certificate)
    listener = Listener(runner=runner, certificates=certificates, host="127.0.0.1", port=0)
    await listener.open()
    try:
        yield Served(redis=redis, book=book, listener=listener, authority=authority)
    finally:
        await listener.close()
        await runner.cleanup()


@pytest.fixture
async def served(redis: Redis, authority: Authority) -> AsyncIterator[Served]:
    access = Access(client_names=(FRONT_PROXY,), keda_token=TOKEN)
    async with _serving(redis, authority, authority.serving(), access) as found:
        yield found


async def test_two_deployments_are_answered_by_their_selectors(served: Served) -> None:
    await served.write(bert=37.5, resnet=500, other=1)
    cluster = served.cluster
    assert (await cluster.ask("deployment in (bert,resnet)")).items == {"bert": "37500m", "resnet": "500"}
    assert (await cluster.ask("deployment%3Dbert")).items == {"bert": "37500m"}
    assert (await cluster.ask("deployment notin (bert),!canary")).items == {"resnet": "500", "other": "1"}
    everything = await cluster.ask()
    assert everything.items == {"bert": "37500m", "resnet": "500", "other": "1"}
    assert everything.content_type == "application/json"


async def test_a_value_has_the_time_of_its_sample(served: Served) -> None:
    await served.write(bert=1)
    (item,) = (await served.cluster.ask("deployment=bert")).json["items"]
    age = datetime.now(UTC) - datetime.fromisoformat(item["timestamp"])
    assert age.total_seconds() >= 0.5, "it was half a second old when it was written"
    assert item["metricLabels"] == {"deployment": "bert", "key": "d1", "team": "search"}


async def test_an_idle_deployment_is_an_explicit_zero(served: Served) -> None:
    await served.write(bert=0)
    assert (await served.cluster.ask("deployment=bert")).items == {"bert": "0"}


async def test_a_stale_signal_is_an_error_never_an_old_number(served: Served) -> None:
    stale = of(1, measured(None, age_s=14.2, error=SignalError.STALE))
    await write_signals(served.redis, [stale], labels={"d1": labels(1, "bert")})
    await served.book.refresh()
    answer = await served.cluster.ask("deployment=bert")
    status = answer.json
    assert (answer.status, status["kind"], status["reason"]) == (503, "Status", "ServiceUnavailable")
    assert "“bert”" in status["message"]
    assert "14.2 s ago, and 6 s is the limit" in status["message"]
    assert "Retry-After" not in answer.headers, "an autoscaler would wait, and those behind it"


async def test_without_any_signals_metrics_are_errors_and_discovery_goes_on(served: Served) -> None:
    assert (await served.cluster.ask("deployment=bert")).status == 503
    assert (await served.cluster.get(f"{ROOT}/v1beta1")).status == 200
    assert (await served.nobody.get("/readyz")).status == 200


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        (f"{ROOT}/v1beta1/namespaces/models/inference_queue", 404, "NotFound"),
        (f"{DEPTH}?labelSelector=deployment%3Dgone", 404, "NotFound"),
        (f"{ROOT}/v1beta1/namespaces/elsewhere/inference_queue_depth", 404, "NotFound"),
        (f"{DEPTH}?labelSelector=deployment%3D%3D%3Dbert", 400, "BadRequest"),
        (f"{ROOT}/v2", 404, "NotFound"),
        ("/openapi/v2", 404, "NotFound"),
        ("/", 404, "NotFound"),
    ],
)
async def test_what_is_not_there_is_a_status_never_an_empty_list(
    served: Served, path: str, code: int, reason: str
) -> None:
    await served.write(bert=1)
    answer = await served.cluster.get(path)
    assert (answer.status, answer.content_type) == (code, "application/json")
    status = answer.json
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert (status["code"], status["reason"]) == (code, reason)
    assert status["message"]


async def test_nothing_can_be_written(served: Served) -> None:
    answer = await served.cluster.get(DEPTH, method="POST")
    assert (answer.status, answer.json["reason"]) == (405, "MethodNotAllowed")
    assert answer.headers["Allow"] == "GET,HEAD"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/apis", "APIGroupList"), (ROOT, "APIGroup"), (f"{ROOT}/v1beta1", "APIResourceList")],
)
async def test_discovery_leads_to_the_metrics(served: Served, path: str, kind: str) -> None:
    answer = await served.cluster.get(path)
    assert (answer.status, answer.json["kind"], answer.json["apiVersion"]) == (200, kind, "v1")
    assert "external.metrics.k8s.io" in answer.body.decode()


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        (f"{PROTOBUF}, */*", 200),
        (f"{PROTOBUF},application/json", 200),
        ("application/json", 200),
        ("application/*;q=0.5", 200),
        ("*/*", 200),
        (f"{AGGREGATED},application/json", 200),
        (AGGREGATED, 406),
        (PROTOBUF, 406),
        ("application/json;q=0", 406),
        ("text/html", 406),
    ],
)
async def test_answers_are_json_whatever_is_preferred(served: Served, accept: str, status: int) -> None:
    await served.write(bert=1)
    answer = await served.cluster.get(DEPTH, Accept=accept)
    assert (answer.status, answer.content_type) == (status, "application/json")


async def test_only_the_front_proxy_is_answered(served: Served, another_authority: Authority) -> None:
    await served.write(bert=1)
    assert (await served.cluster.get(DEPTH, X_Remote_User="system:serviceaccount:x")).status == 200
    missing = await served.nobody.get(DEPTH, X_Remote_User="system:admin", X_Remote_Group="system:masters")
    assert (missing.status, missing.json["reason"]) == (401, "Unauthorized")
    wrong_name = await served.client(served.authority.client("kubelet")).get(DEPTH)
    assert (wrong_name.status, wrong_name.json["reason"]) == (403, "Forbidden")
    stranger = served.client(another_authority.client(FRONT_PROXY))
    with pytest.raises(aiohttp.ClientError):
        await stranger.get(DEPTH)


async def test_any_name_of_the_authority_is_answered_where_none_are_listed(
    redis: Redis, authority: Authority
) -> None:
    async with _serving(redis, authority, authority.serving(), Access()) as served:
        await served.write(bert=1)
        assert (await served.client(authority.client("kubelet")).get(DEPTH)).status == 200
        assert (await served.nobody.get(DEPTH)).status == 401


async def test_without_an_authority_no_certificate_counts(served: Served) -> None:
    """A server that serves KEDA alone does not even ask for one."""
    served.listener.certificates = replace(served.listener.certificates, client_ca=None)
    assert await served.listener.renew()
    assert (await served.cluster.get(DEPTH)).status == 401


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
async def test_health_is_told_to_anybody(served: Served, path: str) -> None:
    answer = await served.nobody.get(path)
    assert (answer.status, answer.body) == (200, b"ok")


async def test_keda_reads_a_number_with_its_token(served: Served) -> None:
    await served.write(bert=12.5, resnet=1)
    path, bearer = "/keda/models/bert/inference_queue_depth", f"Bearer {TOKEN}"
    answer = await served.nobody.get(path, Authorization=bearer)
    assert (answer.status, answer.json["value"]) == (200, 12.5)
    assert answer.json["age_s"] >= 0.5
    for wrong in ("Bearer other", "Bearer", TOKEN, ""):
        assert (await served.nobody.get(path, Authorization=wrong)).status == 401
    assert (await served.cluster.get(path)).status == 401, "a certificate is no token"
    gone = await served.nobody.get("/keda/models/gone/inference_queue_depth", Authorization=bearer)
    assert gone.status == 404
    assert (await served.nobody.get("/keda/models/bert/nothing", Authorization=bearer)).status == 404


async def test_keda_gets_an_error_for_a_stale_signal(served: Served) -> None:
    stale = of(1, measured(None, age_s=14.2, error=SignalError.STALE))
    await write_signals(served.redis, [stale], labels={"d1": labels(1, "bert")})
    await served.book.refresh()
    answer = await served.nobody.get(
        "/keda/models/bert/inference_queue_depth", Authorization=f"Bearer {TOKEN}"
    )
    assert answer.status == 503
    assert "value" not in answer.json


async def test_without_a_token_keda_s_way_is_closed(redis: Redis, authority: Authority) -> None:
    async with _serving(redis, authority, authority.serving(), Access()) as served:
        await served.write(bert=1)
        for authorization in ("Bearer ", "Bearer x", ""):
            answer = await served.nobody.get(
                "/keda/models/bert/inference_queue_depth", Authorization=authorization
            )
            assert answer.status == 404


async def test_two_deployments_of_one_name_are_not_guessed_between(served: Served) -> None:
    both = {"d1": labels(1, "bert"), "d2": labels(2, "bert", team="other")}
    await write_signals(served.redis, [serving(1), serving(2)], labels=both)
    await served.book.refresh()
    answer = await served.nobody.get(
        "/keda/models/bert/inference_queue_depth", Authorization=f"Bearer {TOKEN}"
    )
    assert answer.status == 409


async def test_replaced_certificates_are_taken_up_and_open_connections_go_on(
    served: Served, another_authority: Authority
) -> None:
    cluster, late = served.cluster, replace(served.cluster, trusts=another_authority.certificate)
    before = served.listener.certificates
    reader, writer = await asyncio.open_connection(
        "127.0.0.1",
        served.listener.port,
        ssl=ssl.create_default_context(cafile=str(served.authority.certificate)),
        server_hostname=SERVING,
    )
    new = another_authority.serving(file="serving")
    before.certificate.write_bytes(new.certificate.read_bytes())
    assert not await served.listener.renew(), "the key does not fit yet"
    assert (await cluster.get(f"{ROOT}/v1beta1")).status == 200
    before.key.write_bytes(new.key.read_bytes())
    assert await served.listener.renew()
    assert not await served.listener.renew(), "once is enough"
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await cluster.get(f"{ROOT}/v1beta1")
    assert (await late.get(f"{ROOT}/v1beta1")).status == 200
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


async def test_an_authority_that_was_replaced_lets_nobody_in_any_more(
    served: Served, another_authority: Authority, tmp_path: Path
) -> None:
    held = tmp_path / "client-ca.crt"
    held.write_bytes(served.authority.certificate.read_bytes())
    served.listener.certificates = replace(served.listener.certificates, client_ca=held)
    await served.listener.renew()
    assert (await served.cluster.get(f"{ROOT}/v1beta1")).status == 200
    held.write_bytes(another_authority.certificate.read_bytes())
    assert await served.listener.renew()
    with pytest.raises(aiohttp.ClientError):
        await served.cluster.get(f"{ROOT}/v1beta1")
    new = served.client(another_authority.client(FRONT_PROXY))
    assert (await new.get(f"{ROOT}/v1beta1")).status == 200


async def test_the_files_are_looked_at_by_themselves(served: Served, another_authority: Authority) -> None:
    served.listener.look_s = 0.01
    watching = asyncio.create_task(served.listener.watch())
    late = replace(served.cluster, trusts=another_authority.certificate)
    new, files = another_authority.serving(file="serving"), served.listener.certificates
    files.certificate.write_bytes(new.certificate.read_bytes())
    files.key.write_bytes(new.key.read_bytes())
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    assert (await late.get("/healthz")).status == 200
                    break
                except aiohttp.ClientConnectorCertificateError:
                    await asyncio.sleep(0.01)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_thousands_of_deployments_are_answered_right_one_by_one_and_together(served: Served) -> None:
    count = 3000
    await served.write(**{f"model-{number}": number / 2 for number in range(count)})
    cluster = served.cluster
    for number in (0, 1, count // 2, count - 1):
        answer = await cluster.ask(f"deployment=model-{number}")
        assert {name: Quantity.parse(value).milli for name, value in answer.items.items()} == {
            f"model-{number}": number * 500
        }
    everything = (await cluster.ask()).items
    assert len(everything) == count
    assert sum(Quantity.parse(value).milli for value in everything.values()) == sum(range(count)) * 500
