"""The API over HTTP: who may ask what, and in which form the answer is.

    /apis/…                                      kube-apiserver, by its front-proxy certificate
    /keda/{namespace}/{deployment}/{metric}      KEDA's `metrics-api` scaler, by a bearer token
    /healthz /livez /readyz                      anybody

Answers are JSON whatever protobuf is preferred: clients of Kubernetes decode what Content-Type says. Ready is said
even while signals are missing, since an APIService without an endpoint breaks discovery in the whole cluster, and
a question without an answer gets its own error.
"""

import asyncio
import hmac
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from deployments.autoscaling.external import documents, selector
from deployments.autoscaling.external.book import NAME, Book
from deployments.autoscaling.external.documents import Refusal, Sample
from deployments.autoscaling.external.selector import InvalidSelector, Operator, Requirement, Selector
from deployments.telemetry.signals import SignalName

log = structlog.get_logger(__name__)

PORTION: Final = 100
"""Series of one answer that are made without letting others be answered."""
KEEP_ALIVE_S: Final = 120.0
"""Longer than the 90 s after which clients in Go close what is idle: who closes first never loses a request."""
_JSON: Final = "application/json"
_RANGES: Final = frozenset({"*/*", "application/*", _JSON})


@dataclass(frozen=True, kw_only=True)
class Access:
    """`client_names` may show a certificate of the front proxy's authority (any name, if empty). Without a token,
    KEDA's way is closed."""

    client_names: Collection[str] = ()
    keda_token: str = ""

    def check(self, request: web.Request) -> None:
        """Raises Refusal."""
        if request.path.startswith("/apis"):
            self._check_front_proxy(request)
            _check_accept(request.headers.get("Accept", "*/*"))
        elif request.path.startswith("/keda/"):
            self._check_token(request)

    def _check_front_proxy(self, request: web.Request) -> None:
        names = _common_names(request)
        if not names:
            raise Refusal(401, "Show a client certificate of the cluster's front proxy.")
        if self.client_names and not names & frozenset(self.client_names):
            raise Refusal(403, f"The client certificate of “{min(names)}” is not of an allowed name.")

    def _check_token(self, request: web.Request) -> None:
        if not self.keda_token:
            raise Refusal(404, "This way is closed: SLIPWAY_KEDA_TOKEN is not set.")
        said = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(said, f"Bearer {self.keda_token}".encode()):
            raise Refusal(401, "Send the token of SLIPWAY_KEDA_TOKEN as a bearer token.")


def application(book: Book, *, access: Access) -> web.Application:
    api = _Api(book)
    app = web.Application(middlewares=[_statuses, _guard(access)])
    root = f"/apis/{documents.GROUP}"
    app.add_routes(
        [
            web.get("/apis", _constant(documents.API_GROUP_LIST)),
            web.get(root, _constant(documents.API_GROUP)),
            web.get(f"{root}/{documents.VERSION}", _constant(documents.API_RESOURCE_LIST)),
            web.get(f"{root}/{documents.VERSION}/namespaces/{{namespace}}/{{metric}}", api.values),
            web.get("/keda/{namespace}/{deployment}/{metric}", api.plain_value),
            *(web.get(path, _constant(b"ok", "text/plain")) for path in ("/healthz", "/livez", "/readyz")),
        ]
    )
    return app


class _Api:
    def __init__(self, book: Book) -> None:
        self._book = book

    async def values(self, request: web.Request) -> web.Response:
        """Of every deployment that the selector matches. One that is not known makes all of them unknown: an
        autoscaler adds them up."""
        name = _metric(request)
        try:
            wanted = selector.parse(request.query.get("labelSelector", ""))
        except InvalidSelector as error:
            raise Refusal(400, str(error)) from error
        page = self._book.page
        samples: list[Sample] = []
        for number, series in enumerate(page.select(request.match_info["namespace"], wanted), start=1):
            samples.append(page.sample(series, name)[0])
            if number % PORTION == 0:
                await asyncio.sleep(0)
        return _answer(documents.value_list(samples))

    async def plain_value(self, request: web.Request) -> web.Response:
        name, deployment = _metric(request), request.match_info["deployment"]
        named = Requirement(key=NAME, operator=Operator.IN, values=(deployment,))
        page = self._book.page
        series, *others = page.select(request.match_info["namespace"], Selector((named,)))
        if others:
            raise Refusal(409, f"{len(others) + 1} deployments are called “{deployment}” in this namespace.")
        sample, age_s = page.sample(series, name)
        return _answer(documents.plain_value(sample, age_s=age_s))


def _metric(request: web.Request) -> SignalName:
    asked = request.match_info["metric"]
    try:
        return SignalName(asked)
    except ValueError:
        known = ", ".join(SignalName)
        raise Refusal(404, f"There is no metric “{asked}”. Those that there are: {known}.") from None


def _common_names(request: web.Request) -> frozenset[str]:
    """Of the certificate that was shown and verified; empty without one."""
    transport = request.transport
    connection = transport.get_extra_info("ssl_object") if transport is not None else None
    if not isinstance(connection, ssl.SSLObject):
        return frozenset()
    subject: Any = (connection.getpeercert() or {}).get("subject", ())
    return frozenset(str(value) for relative in subject for name, value in relative if name == "commonName")


def _check_accept(accept: str) -> None:
    """Raises Refusal where plain JSON is not among what is accepted. Aggregated discovery (`as=…`) is another
    document; who asks for nothing else falls back to the plain ones after this answer."""
    for one in accept.lower().split(","):
        media, *parameters = (part.strip() for part in one.split(";"))
        other = any(part.startswith(("as=", "stream=")) or part in ("q=0", "q=0.0") for part in parameters)
        if media in _RANGES and not other:
            return
    raise Refusal(406, f"Answers are {_JSON}, and “{accept[:200]}” accepts no such.")


def _constant(body: bytes, content_type: str = _JSON) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        return _answer(body, content_type=content_type)

    return handle


def _answer(body: bytes, *, status: int = 200, content_type: str = _JSON) -> web.Response:
    return web.Response(body=body, status=status, content_type=content_type)


def _guard(access: Access) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        access.check(request)
        return await handler(request)

    return guard


@web.middleware
async def _statuses(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as refusal:
        _tell(request, refusal)
        return _answer(refusal.to_json(), status=refusal.code)
    except web.HTTPException as error:
        status = Refusal(error.status, f"{request.method} {request.path} is not served here.")
        answer = _answer(status.to_json(), status=status.code)
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except Exception:
        log.exception("not_answered", path=request.path)
        return _answer(Refusal(500, "An error in Slipway, which its log has.").to_json(), status=500)


def _tell(request: web.Request, refusal: Refusal) -> None:
    """Of what somebody must set right, and who asked. Who shows nothing is nobody, and signals that are missing are
    told by who misses them."""
    if refusal.code not in (401, 503):
        log.info(
            "refused",
            code=refusal.code,
            path=request.path,
            user=request.headers.get("X-Remote-User"),
            cause=refusal.message,
        )
