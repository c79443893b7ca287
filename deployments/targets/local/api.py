"""The node's HTTP API: wishes in, states out. Every answer is JSON, every refusal an RFC 9457 document."""

import asyncio
import hmac
import json
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from controlplane.core.errors import InvalidInput, NotFound, SlipwayError
from deployments.domain.wire import Document
from deployments.domain.workload import DesiredDeployment
from deployments.targets.local.events import EventLog
from deployments.targets.local.preflight import preflight
from deployments.targets.local.proxy import DataProxy
from deployments.targets.local.supervisor import Supervisor

_log = logging.getLogger(__name__)
MAX_WAIT_S = 8.0
MAX_TAIL = 5000

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, kw_only=True)
class _Scale(Document):
    revision: int
    replicas: int
    generation: int


class Unauthenticated(SlipwayError):
    status = 401


class NodeApi:
    def __init__(self, supervisor: Supervisor, *, proxy: DataProxy, events: EventLog, address: str) -> None:
        self._supervisor = supervisor
        self._proxy = proxy
        self._events = events
        self._address = address

    def application(self, *, token: str) -> web.Application:
        """With a token, every request must carry it; on a Unix socket the file's mode guards instead."""
        app = web.Application(client_max_size=4 * 1024**2, middlewares=[_problems, _guard(token)])
        app.add_routes(
            [
                web.get("/v1/health", self.health),
                web.get("/v1/deployments", self.observe_all),
                web.put("/v1/deployments/{key}", self.apply),
                web.get("/v1/deployments/{key}", self.observe),
                web.delete("/v1/deployments/{key}", self.delete),
                web.get("/v1/deployments/{key}/desired", self.desired),
                web.post("/v1/deployments/{key}/scale", self.scale),
                web.post("/v1/deployments/{key}/preflight", self.preflight),
                web.get("/v1/deployments/{key}/replicas/{name}/log", self.log),
                web.get("/v1/events", self.events),
                web.get("/v1/proxy/stats", self.proxy_stats),
            ]
        )
        return app

    async def health(self, request: web.Request) -> web.Response:
        proxy_pid = self._proxy.pid
        return web.json_response(
            {"status": "ok", "pid": os.getpid(), "proxy_pid": proxy_pid, "data_address": self._address}
        )

    async def observe_all(self, request: web.Request) -> web.Response:
        found = [self._supervisor.status(key).to_json() for key in self._supervisor.known_keys()]
        return web.json_response({"deployments": found})

    async def observe(self, request: web.Request) -> web.Response:
        return web.json_response(self._supervisor.status(request.match_info["key"]).to_json())

    async def desired(self, request: web.Request) -> web.Response:
        wish = self._supervisor.wish(request.match_info["key"])
        if wish is None:
            raise NotFound("no_such_deployment", "Nothing is wished for under this key.")
        return web.json_response(wish.to_json())

    async def apply(self, request: web.Request) -> web.Response:
        wish = DesiredDeployment.from_json(await _body(request))
        if wish.key != request.match_info["key"]:
            raise InvalidInput("key_mismatch", "The key in the address is not the one in the document.")
        # An ETag that means “nothing is live” is the empty one, so the header's absence is told from it.
        expected = request.headers.get("If-Match")
        self._supervisor.put(wish, expected_live_digest=expected.strip('"') if expected is not None else None)
        return web.json_response({"key": wish.key, "generation": wish.generation})

    async def scale(self, request: web.Request) -> web.Response:
        change = _Scale.from_json(await _body(request))
        self._supervisor.scale(
            request.match_info["key"],
            revision=change.revision,
            replicas=change.replicas,
            generation=change.generation,
        )
        return web.json_response(change.to_json())

    async def delete(self, request: web.Request) -> web.Response:
        self._supervisor.delete(request.match_info["key"])
        return web.Response(status=204)

    async def preflight(self, request: web.Request) -> web.Response:
        body = await _body(request)
        live = body.get("live")
        findings = await preflight(
            DesiredDeployment.from_json(body.get("desired")),
            live=DesiredDeployment.from_json(live) if live is not None else None,
            artifacts=self._supervisor.artifacts,
            proxy=self._proxy,
            start_command=self._supervisor.start_command,
        )
        return web.json_response({"findings": [finding.to_json() for finding in findings]})

    async def log(self, request: web.Request) -> web.Response:
        replica = self._supervisor.replica(request.match_info["key"], request.match_info["name"])
        lines = await asyncio.to_thread(replica.tail, min(_number(request, "tail", 200), MAX_TAIL))
        return web.json_response({"lines": lines})

    async def events(self, request: web.Request) -> web.Response:
        wait_s = min(MAX_WAIT_S, float(_number(request, "wait_ms", 0)) / 1000)
        after, key = _number(request, "after", 0), request.query.get("key")
        found = await self._events.wait(after, key=key, wait_s=wait_s)
        return web.json_response({"events": [event.to_json() for event in found]})

    async def proxy_stats(self, request: web.Request) -> web.Response:
        return web.Response(text=await self._proxy.stats())


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except SlipwayError as error:
        return _problem(request, error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _problem(request, _of_status(error))
    except Exception:  # noqa: BLE001 - the edge of the node: whatever it is, the caller gets a document
        _log.exception("%s %s failed", request.method, request.path)
        fault = SlipwayError("node_fault", "The node could not do this.", "The cause is in the node's log.")
        return _problem(request, fault)


def _guard(token: str) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and not hmac.compare_digest(given.encode(), token.encode()):
            raise Unauthenticated(
                "not_authenticated", "This needs the node's token.", "See SLIPWAY_NODE_TOKEN."
            )
        return await handler(request)

    return guard


def _problem(request: web.Request, error: SlipwayError) -> web.Response:
    return web.json_response(
        error.problem() | {"instance": request.path},
        status=error.status,
        content_type="application/problem+json",
    )


def _of_status(error: web.HTTPException) -> SlipwayError:
    problem = SlipwayError("http", error.reason)
    problem.status = error.status
    return problem


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise InvalidInput("invalid_json", "The body is not valid JSON.", str(error)) from error
    if not isinstance(body, dict):
        raise InvalidInput("invalid_json", "The body must be a JSON object.")
    return body


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal() or len(text) > 18:
        raise InvalidInput("invalid_number", f"{name} must be a whole number.", f"It is “{text[:40]}”.")
    return int(text)
