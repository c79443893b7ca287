"""The HTTP face of a replica: the Open Inference Protocol v2 and the metrics page.

Refused: FastAPI's documentation pages (they load scripts from elsewhere) and its validation answers (the
protocol has its own form of an error).
"""

from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route

from controlplane.core.errors import InvalidInput, NotFound, SlipwayError
from deployments.stacks.fastapi.errors import render
from deployments.stacks.fastapi.infer import Infer, check_model
from deployments.stacks.fastapi.metrics import CONTENT_TYPE
from deployments.stacks.fastapi.protocol import EXTENSIONS, model_metadata
from deployments.stacks.fastapi.service import Service

SERVER = "slipway-fastapi"
_MODEL = "/v2/models/{model}"
_VERSION = "/v2/models/{model}/versions/{version}"


def build_app(service: Service) -> FastAPI:
    app = FastAPI(
        openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, routes=_hot(service)
    )
    app.add_exception_handler(SlipwayError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_route)
    _add_health(app, service)
    _add_metadata(app, service)
    return app


def _hot(service: Service) -> list[BaseRoute]:
    infer = Infer(service)
    return [Route(f"{path}/infer", infer, methods=["POST"]) for path in (_MODEL, _VERSION)]


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready")
    async def ready(response: Response) -> dict[str, bool]:
        response.status_code = 200 if service.ready else 503
        return {"ready": service.ready}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.page(), media_type=CONTENT_TYPE.decode())


def _add_metadata(app: FastAPI, service: Service) -> None:
    config = service.config
    metadata = model_metadata(
        name=config.model_name,
        version=config.model_version,
        model_format=config.model_format,
        signature=config.signature,
    )

    @app.get("/v2")
    async def server() -> dict[str, Any]:
        return {"name": SERVER, "version": "0.1.0", "extensions": list(EXTENSIONS)}

    @app.get(_MODEL)
    @app.get(_VERSION)
    async def model(request: Request) -> dict[str, Any]:
        check_model(request.path_params, model=config.model_name, version=config.model_version)
        return metadata

    @app.get(f"{_MODEL}/ready")
    @app.get(f"{_VERSION}/ready")
    async def model_ready(request: Request, response: Response) -> dict[str, Any]:
        check_model(request.path_params, model=config.model_name, version=config.model_version)
        response.status_code = 200 if service.ready else 503
        return {"name": config.model_name, "ready": service.ready}


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, SlipwayError)
    body, headers = render(error)
    return _response(error.status, body, headers)


async def _refuse_route(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refusal: SlipwayError = InvalidInput("method_not_allowed", "This path does not take that method.")
        refusal.status = 405
    else:
        refusal = NotFound(
            "not_found", "There is nothing at this path.", "See the Open Inference Protocol v2."
        )
    body, headers = render(refusal)
    return _response(refusal.status, body, [*headers, *_plain(error.headers)])


def _plain(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]


def _response(status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> Response:
    return Response(
        body, status_code=status, headers={name.decode(): value.decode() for name, value in headers}
    )
